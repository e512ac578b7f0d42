// What the theme leaves unsaid to those who hear a page rather than see it.
document.addEventListener("DOMContentLoaded", () => {
  const each = (selector, change) => document.querySelectorAll(selector).forEach(change);
  each(".bd-sidebar-primary", (bar) => {
    bar.setAttribute("role", "navigation");
    bar.setAttribute("aria-label", "Site");
  });
  each("button.search-button__button, details.hide > summary", (one) => one.removeAttribute("aria-label"));
  each("summary:has(> .toctree-toggle)", (one) => one.setAttribute("aria-label", "Pages below"));
  each("thead th, tbody th", (head) => {
    if (head.textContent.trim()) return;
    const cell = document.createElement("td"); // the corner of a table heads nothing
    head.replaceWith(cell);
  });
  each(".output, pre", (box) => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; // so that arrows scroll it
  });
});
