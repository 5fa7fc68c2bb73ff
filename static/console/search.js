// The list under the search field: what is typed finds customers, requests, plans and pages. Without
// it the field is a plain form.
const field = document.querySelector('[data-hits]');
const list = document.getElementById('hits');
const options = () => [...list.querySelectorAll('[role="option"]')];
let asked = null;
let pause = 0;

field.setAttribute('role', 'combobox');
field.setAttribute('aria-autocomplete', 'list');
field.setAttribute('aria-expanded', 'false');

function close() {
  clearTimeout(pause);
  asked?.abort();
  list.hidden = true;
  field.setAttribute('aria-expanded', 'false');
  field.removeAttribute('aria-controls');
  field.removeAttribute('aria-activedescendant');
}

function choose(next) {
  const rows = options();
  if (!rows.length) return;
  const at = rows.findIndex((row) => row.getAttribute('aria-selected') === 'true');
  const to = at < 0 ? (next > 0 ? 0 : rows.length - 1) : (at + next + rows.length) % rows.length;
  rows.forEach((row, place) => row.setAttribute('aria-selected', String(place === to)));
  field.setAttribute('aria-activedescendant', rows[to].id);
  rows[to].scrollIntoView({ block: 'nearest' });
}

async function ask() {
  asked?.abort();
  const text = field.value.trim();
  if (text.length < 2) return close();
  asked = new AbortController();
  let answer;
  try {
    answer = await fetch(`${field.dataset.hits}?${new URLSearchParams({ q: text })}`, { signal: asked.signal });
  } catch {
    return;  // Typed on meanwhile, or away: Enter still searches.
  }
  // Signed out, the answer is another page: Enter leads there.
  if (!answer.ok || answer.redirected) return close();
  list.innerHTML = await answer.text();
  options().forEach((row, place) => {
    row.id = `hit-${place}`;
    row.setAttribute('aria-selected', 'false');
  });
  list.hidden = !list.childElementCount;
  field.setAttribute('aria-expanded', String(options().length > 0));
  if (options().length) field.setAttribute('aria-controls', 'hits-list');
}

field.addEventListener('input', () => {
  clearTimeout(pause);
  pause = setTimeout(ask, 150);
});
field.addEventListener('focus', () => { if (field.value.trim()) ask(); });
field.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && !list.hidden) {
    event.preventDefault();  // The first closes the list, the next empties the field.
    close();
  }
  if (list.hidden) return;
  if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
    event.preventDefault();
    choose(event.key === 'ArrowDown' ? 1 : -1);
  }
  const chosen = options().find((row) => row.getAttribute('aria-selected') === 'true');
  if (event.key === 'Enter' && chosen) {
    event.preventDefault();
    chosen.click();
  }
});
document.addEventListener('focusin', (event) => {
  if (!field.form.contains(event.target)) close();
});
document.addEventListener('click', (event) => {
  if (!field.form.contains(event.target)) close();
});
