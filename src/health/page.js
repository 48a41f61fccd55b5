// Keeps the page fresh: asks for /status.json every five seconds and, when something has changed, for the page itself,
// of which it replaces the pieces that differ. The daemon renders; nothing is built from text here.
'use strict';

const POLL_MS = 5000;
const viewer = document.getElementById('viewer');
const silence = document.getElementById('silence');
/** The markup a piece was delivered with, before times were put in words. */
const delivered = new WeakMap();
/** How far the daemon's clock is ahead of ours. */
let ahead = 0;
let shown = null;
let lastAnswer = Date.now();

function pieces(root) {
  return root.querySelectorAll('[data-part]');
}

function note(root) {
  for (const piece of pieces(root)) delivered.set(piece, piece.outerHTML);
}

/** What is worth a new page: all but the passing of time. */
function essence(status) {
  const { time, stages, machine, disk, ...rest } = status;
  const minute = Math.floor(Date.parse(time) / 60000);
  // Numbers of the machine change all the time; what it slows itself down for is news.
  return JSON.stringify([rest, machine?.throttled_by, machine?.silent, minute]);
}

function ago(seconds) {
  if (seconds < 10) return 'just now';
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium', hourCycle: 'h23' });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium', hourCycle: 'h23' });

/** Every time in the reader's own, with its age; days only where it was not today. */
function tellTimes() {
  const now = Date.now() + ahead;
  for (const element of document.querySelectorAll('time')) {
    const at = new Date(element.dateTime);
    const today = at.toDateString() === new Date(now).toDateString();
    const text = (today ? clock : day).format(at);
    const age = ago((now - at) / 1000);
    const words = element.closest('.when') ? `${text} · ${age}` : text;
    if (element.textContent !== words) element.textContent = words;
    element.title = `${day.format(at)}, ${age}`;
  }
}

/** Puts the new page's pieces where they differ; pieces that stay keep their element, so pictures do not flicker. */
function swap(text) {
  const fresh = new DOMParser().parseFromString(text, 'text/html');
  note(fresh);
  document.title = fresh.title;
  // Adopted first: an element that is kept must never leave this document, or its picture would be loaded again.
  const main = document.adoptNode(fresh.getElementById('main'));
  const opened = document.activeElement?.closest?.('a.picture')?.getAttribute('href');
  const kept = new Map([...pieces(document)].map((piece) => [piece.dataset.part, piece]));
  for (const piece of pieces(main)) {
    const old = kept.get(piece.dataset.part);
    if (old && delivered.get(old) === delivered.get(piece)) piece.replaceWith(old);
  }
  document.getElementById('main').replaceChildren(...main.childNodes);
  if (opened) document.querySelector(`a.picture[href="${CSS.escape(opened)}"]`)?.focus({ preventScroll: true });
  tellTimes();
}

async function get(path) {
  const response = await fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(POLL_MS) });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response;
}

async function refresh() {
  try {
    const status = await (await get('/status.json')).json();
    ahead = Date.parse(status.time) - Date.now();
    const now = essence(status);
    if (now !== shown) {
      swap(await (await get('/')).text());
      shown = now;
    }
    lastAnswer = Date.now();
    silence.hidden = true;
  } catch {
    silence.querySelector('span').textContent = clock.format(new Date(lastAnswer));
    silence.hidden = Date.now() - lastAnswer < POLL_MS;
  }
  document.body.classList.toggle('silent', !silence.hidden);
  tellTimes();
  setTimeout(refresh, POLL_MS);
}

function pictures() {
  return [...document.querySelectorAll('a.picture')].map((link) => link.getAttribute('href'));
}

function show(path) {
  const all = pictures();
  const place = all.indexOf(path);
  const picture = viewer.querySelector('img');
  picture.src = path;
  picture.alt = viewer.querySelector('output').textContent = `Film ${path.match(/\d+/)?.[0] ?? ''}`;
  viewer.dataset.path = path;
  for (const button of viewer.querySelectorAll('[data-step]')) {
    button.disabled = all[place + Number(button.dataset.step)] === undefined;
  }
  if (!viewer.open) viewer.showModal();
}

function step(by) {
  const all = pictures();
  const next = all[all.indexOf(viewer.dataset.path) + by];
  if (next) show(next);
}

document.addEventListener('click', (event) => {
  const link = event.target.closest('a.picture');
  const plain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey;
  if (link && plain) {
    event.preventDefault();
    show(link.getAttribute('href'));
  } else if (event.target.dataset?.step) {
    step(Number(event.target.dataset.step));
  } else if (event.target === viewer || event.target === viewer.querySelector('img')) {
    viewer.close();
  }
});
viewer.addEventListener('keydown', (event) => {
  if (event.key === 'ArrowLeft') step(1);
  if (event.key === 'ArrowRight') step(-1);
});

note(document);
tellTimes();
refresh();
