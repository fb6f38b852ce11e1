// A click on the head of a column sorts its table: first up, then down. Empty cells stay at the end.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const value = (row, column, numeric) => {
    const text = row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    return text === "" ? null : numeric ? Number(text) : text;
  };
  heads.forEach((head, column) => {
    const numeric = !head.classList.contains("text");
    head.querySelector("button").addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const keyed = [...body.rows].map((row) => [value(row, column, numeric), row]);
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (numeric ? a - b : a.localeCompare(b));
      });
      body.append(...keyed.map(([, row]) => row));
    });
  });
}
