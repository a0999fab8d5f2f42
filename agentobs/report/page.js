"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const probe = document.body.appendChild(document.createElement("span"));
  probe.hidden = true;

  // What a variable of the page is in the theme that shows.
  const colorOf = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };

  // Colours are named under keys of colours alone: a text of the data that looks like one stays.
  const themed = (value, key = "") => {
    if (Array.isArray(value)) return value.map((each) => themed(each, key));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, of]) => [name, themed(of, name)]));
    }
    const isColor = typeof value === "string" && key.endsWith("color") && value.startsWith("--");
    return isColor ? colorOf(value) : value;
  };

  const draw = () => {
    for (const [name, figure] of Object.entries(figures)) {
      const { data, layout, config } = themed(figure);
      const settings = { displayModeBar: false, responsive: true, ...config };
      Plotly.react(document.getElementById(name), data, layout, settings);
    }
  };

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
  const show = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    draw();
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  prefersDark.addEventListener("change", show);
  button.hidden = false;
  show();
})();
