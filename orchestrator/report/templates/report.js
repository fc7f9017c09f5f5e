"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const said = document.getElementById("said");

  // Tables are sorted by the buttons of their heads: up, down, and back to as they came.
  const number = (text) => {
    const found = text.replaceAll(",", "").replaceAll("\u2212", "-").match(/[-+]?\d+(\.\d+)?(e[-+]?\d+)?/i);
    return found ? Number(found[0]) : NaN;
  };
  const compared = (texts) => {
    const rest = texts.filter((text) => text && text !== "-");
    const isNumbers = rest.length > 0 && rest.every((text) => /^[-+\u2212\d]/.test(text));
    return isNumbers ? (a, b) => number(a) - number(b)
      : (a, b) => a.localeCompare(b, "en", { numeric: true });
  };
  // What a cell says, without what stands below it in small and the reason for having no number.
  const told = (cell) => {
    const copy = cell?.cloneNode(true);
    copy?.querySelectorAll("small, .why").forEach((part) => part.remove());
    return copy?.textContent.trim() ?? "";
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const rows = [...body.rows];
    heads.forEach((head, column) => {
      if (head.hasAttribute("data-fixed")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const next = before === null ? "ascending" : before === "ascending" ? "descending" : null;
        for (const other of heads) other.removeAttribute("aria-sort");
        let sorted = rows;
        if (next) {
          head.setAttribute("aria-sort", next);
          const text = new Map(rows.map((row) => [row, told(row.cells[column])]));
          const order = compared([...text.values()]);
          const sign = next === "ascending" ? 1 : -1;
          const isNone = (one) => !text.get(one) || text.get(one) === "-";
          sorted = [...rows].sort((a, b) =>
            isNone(a) - isNone(b) || (isNone(a) ? 0 : sign * order(text.get(a), text.get(b))));
        }
        body.append(...sorted);
        table.classList.toggle("sorted", next !== null);
        said.textContent = next ? `Sorted by ${head.textContent.trim()}, ${next}`
          : "In the order of the report";
      });
    });

    // What is long can be narrowed to the rows that hold some words.
    if (rows.length > 12) {
      const label = document.createElement("label");
      label.className = "narrow";
      const input = document.createElement("input");
      input.type = "search";
      const count = document.createElement("span");
      label.append("Only rows with", input, count);
      table.closest(".scroll").before(label);
      input.addEventListener("input", () => {
        const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
        let left = 0;
        for (const row of rows) {
          const text = `${row.cells[0].textContent} ${row.cells[1].textContent}`.toLowerCase();
          row.hidden = !words.every((word) => text.includes(word));
          left += row.hidden ? 0 : 1;
        }
        count.textContent = words.length ? `${left} of ${rows.length}` : "";
      });
    }
  }

  // Of a store that is a server, each number leads to its run, and a mean to all of them.
  if (data.server) {
    const base = `${data.server}/#/`;
    const link = (text, address) => {
      const found = document.createElement("a");
      found.href = address;
      found.textContent = text;
      return found;
    };
    for (const row of document.querySelectorAll("tr[data-i]")) {
      const runs = data.runs[row.dataset.i];
      const place = `${base}experiments/${data.experiment}/runs/`;
      const each = row.querySelector(".each");
      const seeds = (each.dataset.seeds ?? row.closest("table").dataset.seeds).split(" ");
      const values = each.firstChild.textContent.split(" ");
      const links = values.map((text, at) => {
        const found = link(text, place + runs[at]);
        found.title = `seed ${seeds[at]}`;
        return [found, " "];
      });
      each.firstChild.replaceWith(...links.flat());
      const mean = row.querySelector(".mean");
      const all = `compare-runs?runs=${encodeURIComponent(JSON.stringify(runs))}` +
        `&experiments=${encodeURIComponent(JSON.stringify([data.experiment]))}`;
      const to = runs.length > 1 ? base + all : place + runs[0];
      mean.replaceChildren(link(mean.textContent, to));
    }
  }

  // A layer's name and zeros, under the pointer.
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  document.addEventListener("pointermove", (event) => {
    const strip = event.target.closest ? event.target.closest("tr[data-i] .h") : null;
    tip.hidden = !strip;
    if (!strip) return;
    const [kind, ...zeros] = data.layers[strip.closest("tr").dataset.i];
    const box = strip.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    const at = Math.min(zeros.length - 1, Math.max(0, Math.floor(share * zeros.length)));
    tip.textContent = `${data.names[kind][at]}: ${(zeros[at] / 100).toFixed(2)} % zeros`;
    const left = Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${box.bottom + 6}px`;
  });
})();
