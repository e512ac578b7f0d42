// What the theme leaves unsaid to those who hear a page rather than see it.
document.addEventListener("DOMContentLoaded", () => {
  const each = (selector, change) => document.querySelectorAll(selector).forEach(change);
  each(".bd-sidebar-primary", (bar) => {
    bar.setAttribute("role", "navigation");
    bar.setAttribute("aria-label", "Site");
  });
  each("button.search-button-field, details.hide > summary", (one) => one.removeAttribute("aria-label"));
  each(".sig dl", (lines) => lines.setAttribute("role", "presentation")); // lines of a signature, not terms
  each("summary:has(> .toctree-toggle)", (one) => one.setAttribute("aria-label", "Pages below"));
  each("thead tr + tr", (row) => { // pandas has a row for the index's name alone: it belongs into the corner above
    const [name, ...others] = row.cells;
    const corner = row.previousElementSibling.cells[0];
    if (corner.textContent.trim() || others.some((one) => one.textContent.trim())) return;
    corner.replaceWith(name);
    row.remove();
  });
  each("thead th, tbody th", (head) => {
    if (head.textContent.trim()) return;
    const cell = document.createElement("td"); // the corner of a table heads nothing
    head.replaceWith(cell);
  });
  each(".output, .pst-scrollable-table-container, pre", (box) => {
    const mark = () => box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; // so that arrows scroll it
    box.addEventListener("scroll", mark);
    new ResizeObserver(mark).observe(box);
  });
});
