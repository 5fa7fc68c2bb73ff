// The frame: the menu on a phone, "/" or Ctrl-K for search, copying what is asked for.
const side = document.getElementById('side');
document.querySelector('[data-opens="side"]')?.addEventListener('click', (event) => {
  const open = side.classList.toggle('open');
  event.currentTarget.setAttribute('aria-expanded', String(open));
  if (open) side.querySelector('a')?.focus();
});
document.addEventListener('click', (event) => {
  if (!side.contains(event.target) && !event.target.closest('[data-opens]')) {
    side.classList.remove('open');
  }
  for (const menu of document.querySelectorAll('.lv-menu[open]')) {
    if (!menu.contains(event.target)) menu.removeAttribute('open');
  }
});
document.addEventListener('keydown', (event) => {
  const typing = event.target.closest?.('input, textarea, select');
  const asked = event.key.toLowerCase() === 'k' && (event.ctrlKey || event.metaKey);
  if (asked || (event.key === '/' && !typing)) {
    event.preventDefault();
    const search = document.getElementById('search');
    // On a phone the field is a page of its own.
    if (search?.offsetParent) search.select();
    else location.assign('/console/search');
  }
  if (event.key === 'Escape') side.classList.remove('open');
});
document.addEventListener('click', async (event) => {
  const button = event.target.closest('button[data-copy]');
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  await navigator.clipboard.writeText(source ? source.textContent : button.dataset.copy);
  const words = button.textContent;
  button.textContent = 'Copied';
  setTimeout(() => { button.textContent = words; }, 1500);
});

// A page that waits for work looks again by itself, and keeps what the reader has scrolled to.
const waits = document.querySelector('[data-refresh]');
if (waits) setTimeout(() => location.reload(), Number(waits.dataset.refresh));
