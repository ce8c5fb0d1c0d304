// Filters clips and sorts tables; the page is complete without it.
for (const box of document.querySelectorAll('.filter')) {
  box.hidden = false;
  const clips = [...document.querySelectorAll('.clip')];
  const texts = clips.map(clip => clip.textContent.toLowerCase());
  box.querySelector('input').addEventListener('input', event => {
    const query = event.target.value.toLowerCase();
    let shown = 0;
    clips.forEach((clip, index) => {
      clip.hidden = !texts[index].includes(query);
      shown += !clip.hidden;
    });
    if (query) document.querySelectorAll('details.clips, details.more').forEach(list => { list.open = true; });
    box.querySelector('output').textContent = query ? `${shown} of ${clips.length} clips` : '';
  });
}
for (const table of document.querySelectorAll('table.sortable')) {
  const value = (row, column) => row.cells[column].textContent.trim();
  const number = text => parseFloat(text.replace('−', '-'));
  table.querySelectorAll('thead th').forEach((head, column) => {
    const button = document.createElement('button');
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener('click', () => {
      const up = head.getAttribute('aria-sort') === 'descending';
      table.querySelectorAll('th').forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        const order = head.classList.contains('n') ? (number(x) || 0) - (number(y) || 0) : x.localeCompare(y);
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
