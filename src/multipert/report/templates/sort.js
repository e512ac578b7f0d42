// Click a column's head to sort its table: best first, then the other way round. Scores that are no numbers stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = head.dataset.first;
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => {
        const cell = row.cells[column];
        return { row, key: cell.dataset.key ?? cell.textContent, isNumber: "key" in cell.dataset };
      });
      rows.sort((a, b) => {
        if (a.key === "" || b.key === "") return (a.key === "") - (b.key === "");
        return sign * (a.isNumber ? a.key - b.key : a.key.localeCompare(b.key, undefined, { numeric: true }));
      });
      body.append(...rows.map((one) => one.row));
    });
  });
}
// Say which tables are wider than the page.
const measure = () => {
  for (const box of document.querySelectorAll(".scroll")) box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1);
};
addEventListener("resize", measure);
for (const one of document.querySelectorAll("details")) one.addEventListener("toggle", measure);
measure();
