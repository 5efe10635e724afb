// Only comfort: everything can be read without this. Makes nothing from text, so foreign text can become nothing but text.
"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, inside = document) => Array.from(inside.querySelectorAll(selector));

  // The switch: as the system, light, dark.
  const themes = [["", "Auto"], ["light", "Light"], ["dark", "Dark"]];
  const button = document.getElementById("theme");
  const word = document.getElementById("theme-word");
  let theme = 0;
  const paint = () => {
    const [value, name] = themes[theme];
    if (value) { root.dataset.theme = value; } else { delete root.dataset.theme; }
    word.textContent = name;
    button.setAttribute("aria-label", "Colours: " + name.toLowerCase() + ". Change");
  };
  button.hidden = false;
  button.addEventListener("click", () => { theme = (theme + 1) % themes.length; paint(); });
  paint();

  // All cases at once.
  const cases = all("details.case");
  const tools = document.getElementById("tools");
  tools.hidden = cases.length === 0;
  const setAll = (open) => { for (const one of cases) { one.open = open; } };
  document.getElementById("open-all").addEventListener("click", () => setAll(true));
  document.getElementById("close-all").addEventListener("click", () => setAll(false));

  // The filter of a conversation.
  for (const form of all("form.filter")) {
    const calls = all(".calls > li", form.parentElement);
    const texts = new Map();
    const text = (call) => {
      if (!texts.has(call)) { texts.set(call, call.textContent.toLowerCase()); }
      return texts.get(call);
    };
    const search = form.querySelector("input");
    const [inCase, kind] = all("select", form);
    const output = form.querySelector("output");
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const call of calls) {
        const fits = (inCase.value === "" || call.dataset.c === inCase.value)
          && (kind.value === "" || call.classList.contains(kind.value))
          && words.every((one) => text(call).includes(one));
        call.hidden = !fits;
        if (fits) { shown += 1; }
      }
      output.textContent = shown === calls.length ? calls.length + " calls" : shown + " of " + calls.length + " calls";
    };
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", filter);
    form.hidden = false;
    filter();
  }

  // A link to something folded away opens it, also where a filter hides it.
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (!target) { return; }
    if (target.hidden) {
      const form = target.closest(".talk").querySelector("form.filter");
      form.reset();
      form.dispatchEvent(new Event("input"));
    }
    for (let one = target; one; one = one.parentElement) {
      if (one instanceof HTMLDetailsElement) { one.open = true; }
    }
    const own = target.querySelector(":scope > details");
    if (own) { own.open = true; }
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();
})();
