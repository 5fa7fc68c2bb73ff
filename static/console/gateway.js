// Gateway calls as they come: the list asks for itself again every two seconds while it is looked at.
const list = document.querySelector('[data-live]');
const button = document.querySelector('[data-live-toggle]');
const EVERY_MS = 2000;
let last = '';

async function refresh() {
  const looking = !document.hidden && !list.contains(document.activeElement);
  if (button.getAttribute('aria-pressed') !== 'true' || !looking) return;
  let answer;
  try {
    answer = await fetch(list.dataset.live, {redirect: 'error'});
  } catch {
    // Away, or signed out: the list stays as it was, and is asked for again.
    return;
  }
  if (!answer.ok) return;
  const fresh = await answer.text();
  // A reader may have begun to select or to use the list meanwhile.
  if (fresh !== last && String(document.getSelection()) === '') list.innerHTML = fresh;
  last = fresh;
}

if (list && button) {
  button.hidden = false;
  button.addEventListener('click', () => {
    const on = button.getAttribute('aria-pressed') !== 'true';
    button.setAttribute('aria-pressed', String(on));
    if (on) refresh();
  });
  setInterval(refresh, EVERY_MS);
}
