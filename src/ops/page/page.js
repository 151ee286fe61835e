// The monitor page: shows what /api/v1/* of its server says and sends an operator's actions.
// A function's key is its name in percent-encoded bytes: the same text in addresses, requests and
// maps, also where the name isn't UTF-8. Names and payloads enter the document as text alone.
// Rows are patched in place, so that focus, selection and scroll position stay.
'use strict';

const FIRST = 50; // rows at first, and more at each "Show more"
const MOST = 1000; // the server's largest `limit`
const PERIOD = 2000; // ms between two fetches of a list at least
const OLD = 300; // s: a job that waits longer is an alarm

const $ = (id) => document.getElementById(id);
const seconds = () => performance.now() / 1000;
const serverTime = () => Date.now() / 1000 + skew;

// ---- Elements ----

function make(tag, className = '', ...children) {
	const node = document.createElement(tag);
	node.className = className;
	node.append(...children);
	return node;
}

function button(className, click, ...children) {
	const node = make('button', className, ...children);
	node.type = 'button';
	node.addEventListener('click', click);
	return node;
}

function nameNode(tag, text = '') {
	const node = make(tag, 'name', text);
	node.dir = 'auto';
	return node;
}

function put(node, text) {
	if (node.shown === text) return;
	node.shown = text;
	node.classList.toggle('zero', text === 0);
	if (typeof text !== 'number' || text < 1e4) {
		node.textContent = text;
		return;
	}
	// Digits are grouped by margins, so that the text itself stays a plain number.
	const groups = String(text).split(/(?=(?:\d{3})+$)/);
	node.replaceChildren(...groups.map((part, i) => make('span', i ? 'group' : '', part)));
}

function attribute(node, name, value) {
	if (value === null) node.removeAttribute(name);
	else node.setAttribute(name, value);
}

// Makes the children of `parent` those of `list`, in its order. `build` returns an element with a
// method `update`; an element whose key stays is kept.
function reconcile(parent, list, key, build) {
	const nodes = (parent.byKey ||= new Map());
	const wanted = new Map(list.map((item) => [key(item), item]));
	for (const [id, node] of nodes) {
		if (wanted.has(id)) continue;
		if (node.contains(document.activeElement)) {
			const near = node.nextElementSibling || node.previousElementSibling;
			(near?.querySelector('button, a') || $('title')).focus({ preventScroll: true });
		}
		node.remove();
		nodes.delete(id);
	}
	let next = parent.firstElementChild;
	for (const [id, item] of wanted) {
		if (!nodes.has(id)) nodes.set(id, build(id));
		const node = nodes.get(id);
		node.update(item);
		if (node === next) {
			next = next.nextElementSibling;
		} else {
			const focused = node.contains(document.activeElement) && document.activeElement;
			parent.insertBefore(node, next);
			if (focused) focused.focus({ preventScroll: true });
		}
	}
}

// A list of names and values.
function facts(list, pairs) {
	reconcile(list, pairs, ([name]) => name, (name) => {
		const value = make('dd');
		const node = make('div', '', make('dt', '', name), value);
		node.update = ([, text]) => put(value, text);
		return node;
	});
	return list;
}

function sparkline(parent) {
	const [node, area, line] = ['svg', 'path', 'path'].map((tag) =>
		document.createElementNS('http://www.w3.org/2000/svg', tag));
	node.setAttribute('viewBox', '0 0 118 30');
	node.setAttribute('preserveAspectRatio', 'none');
	node.setAttribute('aria-hidden', 'true');
	area.setAttribute('class', 'area');
	line.setAttribute('class', 'line');
	node.append(area, line);
	parent.append(make('span', 'spark', node));
	let shown = null;
	return (history) => {
		if (history === shown) return;
		shown = history;
		const top = Math.max(...history, 0);
		const left = 2 * (60 - history.length);
		const path = top && history.map((value, i) =>
			`${i ? 'L' : 'M'}${left + 2 * i} ${(29 - (value / top) * 28).toFixed(1)}`).join('');
		line.setAttribute('d', path || '');
		area.setAttribute('d', path ? `${path}V30H${left}Z` : '');
	};
}

// ---- Names ----

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const hex = (number, width) => number.toString(16).padStart(width, '0');

const bytesOf = (name) => (typeof name === 'string' ? encoder.encode(name)
	: Uint8Array.from(atob(name.base64), (c) => c.charCodeAt(0)));

const percent = (bytes) => Array.from(bytes, (byte) => {
	const c = String.fromCharCode(byte);
	return /[\w.~-]/.test(c) ? c : `%${hex(byte, 2).toUpperCase()}`;
}).join('');

const keyOf = (name) => percent(bytesOf(name));

// The bytes of a key, also of one that a browser or a person wrote otherwise.
const bytesOfKey = (key) => Uint8Array.from(key.replaceAll('+', ' ').split(/(%[0-9a-f]{2})/i)
	.flatMap((part, i) => (i % 2 ? parseInt(part.slice(1), 16) : [...encoder.encode(part)])));

function textOf(bytes) {
	try {
		return decoder.decode(bytes);
	} catch {
		return Array.from(bytes, (byte) =>
			(byte > 31 && byte < 127 ? String.fromCharCode(byte) : `\\x${hex(byte, 2)}`)).join('');
	}
}

// Control and direction characters as escapes, so that a name can't hide what it is.
const INVISIBLE = /[\0-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const readable = (text) => text.replace(INVISIBLE, (c) => {
	const code = c.charCodeAt(0);
	return { '\n': '\\n', '\t': '\\t' }[c] || (code < 256 ? `\\x${hex(code, 2)}`
		: `\\u${hex(code, 4)}`);
});
const nameOf = (name) => readable(typeof name === 'string' ? name : textOf(bytesOf(name)));
const nameOfKey = (key) => readable(textOf(bytesOfKey(key)));

// ---- Numbers ----

const group = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, '\u202f');
const plural = (number, word) => `${group(number)} ${word}${number === 1 ? '' : 's'}`;
const percentage = (part) => `${Math.round(part * 100) || (part && '<1')} %`;
const sum = (numbers) => Object.values(numbers).reduce((total, number) => total + number, 0);

function age(value) {
	const s = Math.max(0, Math.floor(value));
	if (s < 60) return `${s} s`;
	if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
	if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
	return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function duration(value) {
	if (value >= 10 || value === 0) return age(value);
	return value < 1 ? `${(value * 1000).toPrecision(2) * 1} ms` : `${value.toFixed(1)} s`;
}

function rate(value) {
	if (value >= 10 || value <= 0) return Math.round(value);
	return value < 0.1 ? '<0.1' : value.toFixed(1);
}

function size(bytes) {
	if (bytes < 1024) return `${bytes} B`;
	const unit = Math.min(4, Math.floor(Math.log2(bytes) / 10));
	const value = bytes / 2 ** (10 * unit);
	return `${value.toFixed(value < 10 ? 1 : 0)} ${' KMGT'[unit]}iB`;
}

const moment = (at) => new Date(at * 1000).toLocaleString();

// The parts of a number that aren't 0: "3 high, 12 normal".
const parts = (numbers, none = '') => Object.entries(numbers).filter(([, number]) => number)
	.map(([name, number]) => `${group(number)} ${name.replace('_', ' ')}`).join(', ') || none;

// ---- State: what the address says ----

const STATES = { running: 'running', queued: 'waiting', delayed: 'delayed' };

let state = {};
let server = null; // the last answer of /api/v1/server, patched by events
let current = null; // the function of the jobs view
let listed = []; // the jobs that are shown
let skew = 0; // the server's clock minus this one, s
let automatic = 'function'; // the sort of functions when the address names none
const may = () => Boolean(server?.may?.admin);

function parse() {
	const raw = {};
	for (const part of location.search.slice(1).split('&')) {
		const [, name, value] = part.match(/^(\w+)=(.*)/) || [];
		raw[name] = value;
	}
	const fn = raw.function === undefined ? null : percent(bytesOfKey(raw.function));
	let view = Object.hasOwn(COLUMNS, raw.view) ? raw.view : 'functions';
	if (view === 'jobs' && fn === null) view = 'functions';
	return {
		view,
		fn: view === 'jobs' || view === 'workers' ? fn : null,
		state: view === 'jobs' && Object.hasOwn(STATES, raw.state) ? raw.state : null,
		filter: textOf(bytesOfKey(raw.filter || '')).slice(0, 512),
		sort: COLUMNS[view].some(([, sort]) => sort && sort === raw.sort) ? raw.sort : null,
		order: ['asc', 'desc'].includes(raw.order) ? raw.order : null,
		limit: history.state?.limit || FIRST,
	};
}

// NAME=VALUE of those that have a value; values are encoded already.
const query = (parameters) => Object.entries(parameters)
	.filter(([, value]) => value != null && value !== '')
	.map(([name, value]) => `${name}=${value}`).join('&');

function address({ view, fn, state: which, filter, sort, order }) {
	const text = query({
		view: view === 'functions' ? null : view, function: fn, state: which,
		filter: filter && keyOf(filter), sort, order: sort && order,
	});
	return text ? `/?${text}` : '/';
}

const usual = (sort) => (['function', 'address', 'since'].includes(sort) ? 'asc' : 'desc');

// The sort in force: the address's, or the view's own.
function sorting() {
	const sort = state.sort || { functions: automatic, workers: 'address' }[state.view];
	return { sort, order: state.order || usual(sort) };
}

function keep(change) {
	Object.assign(state, change);
	history.replaceState({ limit: state.limit }, '', address(state));
	blocked = false;
	load(true);
}

function open(url) {
	history.replaceState({ limit: state.limit, scroll: scrollY }, '');
	history.pushState(null, '', url);
	arrive();
	scrollTo(0, 0);
	$('title').focus({ preventScroll: true });
}

// ---- Requests ----

class Refusal extends Error {
	constructor(status, { code = `HTTP ${status}`, message = '', remedy = '' }) {
		super(`${code}: ${message} ${remedy}`);
		this.status = status;
	}
}

async function request(path, parameters = {}, { method = 'GET', body, signal } = {}) {
	const signals = [AbortSignal.timeout(method === 'GET' ? 8000 : 60000), signal].filter(Boolean);
	const headers = {};
	if (method !== 'GET') headers['X-Ringgear'] = '1';
	if (body) headers['Content-Type'] = 'application/json';
	const answer = await fetch(`/api/v1/${path}?${query(parameters)}`,
		{ method, headers, body: body && JSON.stringify(body), signal: AbortSignal.any(signals) });
	if (answer.ok) return answer.status === 204 ? null : answer.json();
	const told = await answer.json().catch(() => ({}));
	throw new Refusal(answer.status, told.error || {});
}

const explain = (error) => (error instanceof Refusal ? error.message
	: `The server doesn’t answer (${error.message}).`);

// ---- Alarms ----

const alarms = new Map(); // key -> {key, f, at}: functions in trouble, wherever they were seen

// What is wrong with a function whose numbers are `later` seconds old.
function troubles(f, later) {
	const found = [];
	const add = (grave, tag, text) => found.push({ grave, tag, text });
	const waiting = sum(f.jobs_queued);
	const oldest = waiting && f.queue_oldest_age_seconds + later;
	if (waiting && !f.workers) {
		add(true, 'no workers', `${plural(waiting, 'job')} waiting and no workers`);
	}
	if (oldest > OLD) add(true, 'old jobs', `oldest waits ${age(oldest)}`);
	const { completed, failed } = f.rate;
	const part = failed / (completed + failed || 1);
	if (failed >= 0.1 && part >= 0.1) {
		const tag = `${percentage(part)} fail`;
		add(part >= 0.5, tag, `${tag}, ${rate(failed)} a second`);
	}
	return found;
}

function note(f, key) {
	if (troubles(f, 0).length) alarms.set(key, { key, f, at: seconds() });
	else alarms.delete(key);
}

const memoryShare = ({ used_bytes, limit_bytes }) => (limit_bytes ? used_bytes / limit_bytes : 0);

function serverTroubles() {
	const found = [];
	const add = (grave, title, text) => found.push({ key: title, grave, title, text });
	const { store, memory, cores, certificates } = server;
	if (store && !store.up) {
		add(true, `Store ${store.kind}`, `is down; ${plural(store.pending_operations, 'operation')} ` +
			`pending, the oldest for ${age(store.oldest_pending_seconds)}`);
	}
	const used = memoryShare(memory);
	if (used > 0.8) {
		add(used > 0.95, 'Memory', `${percentage(used)} of ${size(memory.limit_bytes)} used; ` +
			'at the limit submissions are refused');
	}
	for (const { core, smooth } of cores) {
		if (smooth > 0.9) add(false, `Core ${core}`, `is ${percentage(smooth)} busy`);
	}
	for (const { file, not_after } of certificates || []) {
		const left = not_after - serverTime();
		if (left < 14 * 86400) {
			add(left < 2 * 86400, `Certificate ${file}`,
				left > 0 ? `expires in ${age(left)}` : `expired ${age(-left)} ago`);
		}
	}
	return found;
}

function alarmRow(key) {
	const [icon, word, text] = ['icon', 'hidden', 'what'].map((name) => make('span', name));
	icon.setAttribute('aria-hidden', 'true');
	const title = nameNode(key.startsWith('/') ? 'a' : 'strong');
	const node = make('li', '', icon, word, title, ' ', text);
	if (title.href === '') title.href = key;
	node.update = (item) => {
		node.className = item.grave ? 'grave' : 'mild';
		put(icon, item.grave ? '!' : '▲');
		put(word, item.grave ? 'Alarm: ' : 'Warning: ');
		put(title, item.title);
		put(text, item.text);
	};
	return node;
}

function showAlarms() {
	const list = [...alarms.values()].map(({ key, f, at }) => {
		const found = troubles(f, seconds() - at);
		return {
			key: address({ view: 'jobs', fn: key }), grave: found.some(({ grave }) => grave),
			title: nameOf(f.function), text: found.map(({ text }) => text).join(' · '),
			weight: f.queue_oldest_age_seconds || 0,
		};
	}).sort((a, b) => b.grave - a.grave || b.weight - a.weight);
	const own = serverTroubles();
	const count = list.length + own.length;
	const shown = [...own, ...list.slice(0, 8)].sort((a, b) => b.grave - a.grave);
	if (list.length > 8) {
		shown.push({ key: address({ sort: 'oldest', order: 'desc' }), text: 'in trouble',
			title: plural(list.length - 8, 'more function') });
	}
	reconcile($('alarm-list'), shown, ({ key }) => key, alarmRow);
	put($('alarm-count'), count ? plural(count, 'alarm') : 'No alarms');
	$('alarms').classList.toggle('calm', !count);
	document.title = `${count ? `(${count}!) ` : ''}ringgear ${location.host}`;
}

// Looks for functions in trouble beyond the rows that are shown.
async function scan() {
	scanned = Date.now();
	scanDue = false;
	const began = seconds();
	const sorts = server.functions > FIRST ? ['oldest', 'waiting', 'failed'] : ['oldest'];
	try {
		const answers = await Promise.all(sorts.map((sort) =>
			request('functions', { sort, order: 'desc', limit: FIRST })));
		for (const f of answers.flatMap(({ functions }) => functions)) note(f, keyOf(f.function));
		const whole = answers[0].next === null;
		for (const [key, { at }] of alarms) {
			if (at < (whole ? began : began - 30)) alarms.delete(key);
		}
		showAlarms();
	} catch {
		// The list's own fetch reports a server that is gone.
	}
}

// ---- Header ----

const showRate = sparkline($('t-rate').parentNode);

function showHeader() {
	const { jobs, totals, memory, store, cores, connections } = server;
	const used = memoryShare(memory);
	const [busiest] = cores.toSorted((a, b) => b.busy - a.busy);
	const tiles = {
		waiting: [sum(jobs.queued), parts(jobs.queued)],
		running: [jobs.running, `${group(jobs.delayed)} delayed`],
		workers: [server.workers, plural(server.functions, 'function')],
		rate: [rate(server.rate.completed)],
		failed: [rate(server.rate.failed), `${group(totals.failed)} since start`],
		memory: [size(memory.used_bytes), memory.limit_bytes
			? `${percentage(used)} of ${size(memory.limit_bytes)}` : 'no limit'],
		store: store ? [store.up ? 'up' : 'down',
			`${store.kind}, ${group(store.pending_operations)} pending`] : ['none', 'jobs in memory'],
		core: [percentage(busiest.busy), `core ${busiest.core} of ${cores.length}`],
		connections: [sum(connections), parts(connections)],
	};
	for (const [name, [main, below]] of Object.entries(tiles)) {
		put($(`t-${name}`), main);
		if (below !== undefined) put($(`t-${name}`).parentNode.querySelector('.sub'), below);
	}
	showRate(server.history);
	$('t-store').classList.toggle('grave', store?.up === false);
	const meter = $('t-meter');
	meter.hidden = !memory.limit_bytes;
	meter.classList.toggle('high', used > 0.8);
	attribute(meter, 'aria-valuenow', String(Math.round(used * 100)));
	meter.firstElementChild.style.width = `${Math.min(100, used * 100)}%`;
	put($('identity'), `${server.version} on ${location.host}, up ` +
		age(serverTime() - server.start_time_seconds));
	if (state.view === 'server') showServer();
}

// Takes over members of /api/v1/server. Alarms go by a core's busy share over some seconds.
function learn(fresh) {
	for (const core of fresh.cores) {
		const before = server?.cores.find((other) => other.core === core.core);
		core.smooth = (before?.smooth ?? core.busy) * 0.7 + core.busy * 0.3;
	}
	server = Object.assign(server || {}, fresh);
	showHeader();
}

async function loadServer() {
	serverLoaded = Date.now();
	const fresh = await request('server');
	fresh.workers ??= (await request('workers', { limit: 1 })).total;
	skew = fresh.start_time_seconds + fresh.uptime_seconds - Date.now() / 1000;
	const first = !server;
	if (first) automatic = fresh.functions > FIRST ? 'oldest' : 'function';
	learn(fresh);
	if (first) showSort();
	answered();
}

// ---- Tables ----
// A column: title, sort key, class, and a function that fills a new cell and returns the function
// that updates it.

const only = (value) => (cell) => (item, row) => put(cell, value(item, row));

// A cell with a main value and a smaller text beside or under it.
const double = (main, below) => (cell) => {
	const [upper, lower] = ['main', 'sub'].map((name) => make('span', name));
	cell.append(upper, ' ', lower);
	return (item, row) => {
		put(upper, main(item, row));
		put(lower, below(item, row));
	};
};

function functionCell(cell) {
	const link = nameNode('a');
	const tags = make('span');
	cell.append(link, ' ', tags);
	return (f, row) => {
		put(link, nameOf(f.function));
		attribute(link, 'href', address({ view: 'jobs', fn: row.key }));
		const found = troubles(f, row.later());
		const grave = found.some((trouble) => trouble.grave);
		row.node.className = found.length ? (grave ? 'grave' : 'mild') : '';
		reconcile(tags, found, ({ tag }) => tag.replace(/\d+/, ''), () => {
			const node = make('span');
			node.update = (trouble) => {
				node.className = `tag ${trouble.grave ? 'grave' : 'mild'}`;
				put(node, `${trouble.grave ? '!' : '▲'} ${trouble.tag}`);
			};
			return node;
		});
	};
}

function rateCell(cell) {
	const number = make('span', 'main');
	cell.append(number, ' ');
	const show = sparkline(cell);
	return (f) => {
		put(number, rate(f.rate.completed));
		show(f.history);
	};
}

function failing({ rate: { failed, completed } }) {
	return failed > 0 ? `${rate(failed)}/s, ${percentage(failed / (failed + completed))}` : '';
}

function actionCell(cell) {
	let job = null;
	const handles = [0, 1].map(() => make('span', 'hidden'));
	if (may()) {
		cell.append(button('quiet danger', () => cancelJob(job), 'Cancel…', handles[0]), ' ',
			button('quiet', () => showPayload(job), 'Payload', handles[1]));
	}
	return (item) => {
		job = item;
		for (const node of handles) put(node, ` ${item.handle}`);
	};
}

function jobState(job, row) {
	if (job.running_seconds != null) return `for ${age(job.running_seconds + row.later())}`;
	if (job.run_at == null || job.state !== 'delayed') return '';
	const left = job.run_at - serverTime();
	return left > 0 ? `starts in ${age(left)}` : 'due';
}

function progress({ status }) {
	if (!status) return '';
	const { numerator, denominator } = status;
	const part = denominator > 0 ? ` (${percentage(numerator / denominator)})` : '';
	return `${numerator} of ${denominator}${part}`;
}

const linksCell = (cell) => ({ functions, function_count: count }) => {
	const shown = functions.slice(0, 3).map(keyOf);
	const text = `${shown} ${count}`;
	if (cell.shown === text) return;
	cell.shown = text;
	cell.replaceChildren(...shown.flatMap((key) => {
		const link = nameNode('a', nameOfKey(key));
		link.href = address({ view: 'jobs', fn: key });
		return [link, ' '];
	}), count > shown.length ? `and ${group(count - shown.length)} more` : '');
};

const runs = (worker) => worker.running.map((handle, i) => {
	const time = worker.running_seconds?.[i];
	return time === undefined ? handle : `${handle} for ${age(time)}`;
}).join(', ') || '–';

const COLUMNS = {
	functions: [
		['Function', 'function', 'first', functionCell],
		['Waiting', 'waiting', 'number beside split',
			double((f) => sum(f.jobs_queued), (f) => parts(f.jobs_queued))],
		['Oldest', 'oldest', 'number', only((f, row) => (f.queue_oldest_age_seconds === null ? '–'
			: age(f.queue_oldest_age_seconds + row.later())))],
		['Running', 'running', 'number', only((f) => f.jobs_running)],
		['Workers', 'workers', 'number beside busy', double((f) => f.workers,
			(f) => (f.workers_busy ? `${group(f.workers_busy)} busy` : ''))],
		['Delayed', 'delayed', 'number minor', only((f) => f.jobs_delayed)],
		['Jobs/s', 'rate', 'number beside rate', rateCell],
		['Failed', 'failed', 'number beside minor fails',
			double((f) => sum(f.jobs_failed_total), failing)],
	],
	jobs: [
		['Handle', null, 'first mono', only((job) => job.handle)],
		['State', null, 'tight', double((job) => STATES[job.state] || job.state, jobState)],
		['Age', null, 'number', only((job, row) => age(job.age_seconds + row.later()))],
		['Priority', null, 'tight',
			double((job) => job.priority, (job) => (job.background ? 'background' : 'foreground'))],
		['Attempts', null, 'number', only((job) => job.attempts)],
		['Size', null, 'number', only((job) => size(job.bytes))],
		['Unique', null, 'mono any', only((job) => (job.unique === null ? '–' : nameOf(job.unique)))],
		['Worker', null, 'any', double(({ worker }) => (worker ? nameOf(worker.id) : '–'),
			({ worker }) => worker?.address || '')],
		['Progress', null, 'tight', only(progress)],
		['Actions', null, 'actions', actionCell],
	],
	workers: [
		['Address', 'address', 'first mono', double((worker) => worker.address, (worker) =>
			[worker.tls && 'TLS', worker.certificate].filter(Boolean).join(', '))],
		['Id', null, 'any', only((worker) => nameOf(worker.id))],
		['Functions', null, 'list', linksCell],
		['Running', 'running', 'mono any', only(runs)],
		['State', null, '', only((worker) => worker.state)],
		['Connected', 'since', 'number', only(({ since }) => age(serverTime() - since))],
	],
	server: [],
};

const filter = $('filter');
const table = $('list');
const body = table.tBodies[0];
body.byKey = new Map();

function tableRow(key) {
	const node = make('tr');
	node.setAttribute('role', 'row');
	const row = { key, node, later: () => seconds() - at };
	let item = null;
	let at = 0;
	const updates = COLUMNS[state.view].map(([title, , className, fill], i) => {
		const cell = node.appendChild(make(i ? 'td' : 'th', className));
		cell.setAttribute('role', i ? 'cell' : 'rowheader');
		cell.dataset.label = title;
		return fill(cell);
	});
	node.show = () => updates.forEach((update) => update(item, row));
	node.update = (fresh) => {
		item = fresh;
		at = seconds();
		node.show();
	};
	return node;
}

function showSort() {
	const { sort, order } = sorting();
	for (const cell of table.tHead.rows[0].cells) {
		attribute(cell, 'aria-sort', sort && cell.dataset.sort === sort ? `${order}ending` : null);
	}
}

function sortBy(sort) {
	const now = sorting();
	const turned = now.order === 'asc' ? 'desc' : 'asc';
	keep({ sort, order: now.sort === sort ? turned : usual(sort) });
	showSort();
}

function showHead() {
	table.className = state.view === 'functions' ? '' : 'cards';
	table.dataset.view = state.view;
	reconcile(body, [], null, tableRow);
	body.replaceChildren();
	table.tHead.rows[0].replaceChildren(...COLUMNS[state.view].map(([title, sort, className]) => {
		const cell = make('th', className, sort ? button('sort', () => sortBy(sort), title) : title);
		cell.setAttribute('role', 'columnheader');
		cell.dataset.sort = sort || '';
		return cell;
	}));
	showSort();
}

function showList(list, total, key, what) {
	reconcile(body, list, key, tableRow);
	const { filter, limit, view } = state;
	const found = total ?? list.length;
	const more = total === null ? list.length >= limit : list.length < total;
	put($('count'), plural(found, what) + (filter ? ' found' : '') +
		(more ? `, ${group(list.length)} shown` : ''));
	$('more').hidden = !more || limit >= MOST || (filter && view === 'jobs');
	table.hidden = !list.length;
	$('empty').hidden = list.length > 0;
	put($('empty'), filter ? `Nothing matches “${readable(filter)}”.` : {
		functions: 'No functions yet: a worker that registers one or a submission makes it appear.',
		jobs: `No ${STATES[state.state] || ''} jobs.`.replace('  ', ' '),
		workers: 'No workers.',
	}[view]);
}

// ---- Views ----

let loading = null; // the AbortController of the list's fetch
let loaded = 0; // when it ended, ms
let cost = 0; // how long it took, ms
let dirty = false; // events say that the list has changed
let blocked = false; // the server refused; another address or a new visit tries again
let scanned = 0; // ms
let scanDue = false;
let serverLoaded = 0; // ms
const cancelled = new Set(); // handles, until the view changes

// Each fetches its rows and returns what shows them.
const fetchers = {
	async functions(signal) {
		const answer = await request('functions',
			{ filter: keyOf(state.filter), ...sorting(), limit: state.limit }, { signal });
		return () => {
			for (const f of answer.functions) note(f, keyOf(f.function));
			showList(answer.functions, answer.total, (f) => keyOf(f.function), 'function');
			showAlarms();
		};
	},

	async jobs(signal) {
		const { fn } = state;
		const limit = state.filter ? MOST : state.limit;
		const match = fn.replace(/%2A|%3F|%5C/g, '%5C$&'); // a glob for just this name
		const states = state.state ? [state.state] : Object.keys(STATES);
		const [{ functions }, ...answers] = await Promise.all([
			request('functions', { match, limit: 1 }, { signal }),
			...states.map((which) =>
				request('jobs', { function: fn, state: which, limit }, { signal })),
		]);
		return () => {
			current = functions[0] || null;
			if (current) note(current, fn);
			listed = answers.flatMap(({ jobs }) => jobs).filter(({ handle }) => !cancelled.has(handle));
			let total = answers.some((answer) => answer.total === null) ? null
				: Math.max(listed.length, answers.reduce((all, answer) => all + answer.total, 0));
			if (state.filter) {
				const text = state.filter.toLowerCase();
				listed = listed.filter(({ handle, unique, worker }) =>
					[handle, nameOf(unique ?? ''), nameOf(worker?.id ?? ''), worker?.address]
						.some((field) => field?.toLowerCase().includes(text)));
				total = listed.length;
			}
			listed = listed.slice(0, limit);
			showSummary();
			showList(listed, total, ({ handle }) => handle, 'job');
		};
	},

	async workers(signal) {
		const { fn, filter, limit } = state;
		const answer = await request('workers',
			{ filter: keyOf(filter), function: fn, ...sorting(), limit }, { signal });
		const seen = {};
		return () => showList(answer.workers, answer.total, ({ address: peer }) => {
			seen[peer] = (seen[peer] || 0) + 1; // a Unix peer may be connected several times
			return `${peer} ${seen[peer]}`;
		}, 'worker');
	},

	async server() {
		return showServer;
	},
};

async function load(wanted, then) {
	if (blocked || !server || document.hidden || (loading && !wanted)) return;
	loading?.abort();
	const mine = new AbortController();
	loading = mine;
	dirty = false;
	const began = Date.now();
	try {
		const show = await fetchers[state.view](mine.signal);
		if (loading !== mine) return;
		show();
		answered();
		put($('problem'), '');
		then?.();
	} catch (error) {
		if (loading === mine) failed(error);
	} finally {
		if (loading === mine) {
			loading = null;
			loaded = Date.now();
			cost = loaded - began;
		}
	}
}

// Shows the view that the address names.
function arrive(then) {
	state = parse();
	blocked = false;
	current = null;
	listed = [];
	cancelled.clear();
	const { view, fn } = state;
	const lists = view !== 'server';
	for (const name of ['functions', 'workers', 'server']) {
		attribute($(`nav-${name}`), 'aria-current', view === name ? 'page' : null);
	}
	const label = `Filter ${view}`;
	filter.placeholder = `${label} ( / )`;
	filter.setAttribute('aria-label', label);
	filter.value = state.filter;
	$('title').replaceChildren(view === 'jobs' ? 'Jobs of ' : view[0].toUpperCase() + view.slice(1));
	if (fn !== null) {
		$('title').append(view === 'jobs' ? '' : ' with ', nameNode('span', nameOfKey(fn)));
	}
	$('search').hidden = !lists;
	table.hidden = !lists;
	$('server').hidden = lists;
	for (const id of ['summary', 'tabs', 'more', 'empty']) $(id).hidden = true;
	for (const id of ['count', 'problem']) put($(id), '');
	reconcile($('actions'), [], null);
	if (lists) showHead();
	load(true, then);
}

// ---- Jobs of a function ----

const summary = make('dl', 'facts');
$('summary').append(summary);
const showHistory = sparkline($('summary'));

const percentiles = (times) => (times ? ['p50', 'p90', 'p99'].map((name) =>
	`${name} ${duration(times[name])}`).join(', ') : '–');
const limits = (numbers) => parts(numbers, 'no limit');

function showSummary() {
	const f = current;
	$('summary').hidden = !f;
	if (f) {
		const oldest = f.queue_oldest_age_seconds;
		facts(summary, [
			['Oldest waiting', oldest === null ? '–' : age(oldest)],
			['Workers', `${group(f.workers)}, ${group(f.workers_busy)} busy`],
			['Time waiting', percentiles(f.wait)],
			['Time running', percentiles(f.run)],
			['Submitted', parts({ ...f.jobs_submitted_total, joined: f.jobs_joined_total }, '0')],
			['Completed', `${group(f.jobs_completed_total)}, ${rate(f.rate.completed)} a second`],
			['Failed', parts(f.jobs_failed_total, '0')],
			['Run again', parts(f.jobs_rerun_total, '0')],
			['Refused', parts(f.jobs_refused_total, '0')],
			['Queue limit', limits(f.maxqueue)],
		]);
		showHistory(f.history);
	}
	showTabs();
	showActions();
}

function showTabs() {
	const { fn, state: which } = state;
	const tab = (text, wanted, count) =>
		({ text, count, now: wanted === which, href: address({ view: 'jobs', fn, state: wanted }) });
	const f = current;
	$('tabs').hidden = false;
	reconcile($('tabs'), [
		tab('All', null, ''),
		tab('Waiting', 'queued', f ? sum(f.jobs_queued) : 0),
		tab('Running', 'running', f ? f.jobs_running : 0),
		tab('Delayed', 'delayed', f ? f.jobs_delayed : 0),
		{ text: 'Its workers', count: '', href: address({ view: 'workers', fn }) },
	], ({ text }) => text, (text) => {
		const count = make('span', 'sub');
		const node = make('a', '', text, ' ', count);
		node.update = (item) => {
			put(count, item.count);
			attribute(node, 'href', item.href);
			attribute(node, 'aria-current', item.now ? 'true' : null);
		};
		return node;
	});
}

function showActions() {
	const list = [];
	const add = (text, act, danger) => list.push({ text, act, danger });
	if (may() && current) {
		// Browsers resolve these two names in a path, so that requests would go elsewhere.
		const apart = state.fn === '.' || state.fn === '..';
		const waiting = sum(current.jobs_queued);
		const delayed = current.jobs_delayed;
		if (waiting && !apart) {
			add(`Purge ${group(waiting)} waiting…`, () => purge('queued', waiting), true);
		}
		if (delayed && !apart) {
			add(`Purge ${group(delayed)} delayed…`, () => purge('delayed', delayed), true);
		}
		if (listed.length) add(`Purge ${group(listed.length)} listed…`, () => purge('listed'), true);
		if (!apart) add('Limit the queue…', limitQueue, false);
	}
	reconcile($('actions'), list, ({ text }) => text.replace(/\d.*\d|\d/, ''), () => {
		let act = null;
		const node = button('', () => act());
		node.update = (item) => {
			act = item.act;
			node.className = item.danger ? 'danger' : '';
			put(node, item.text);
		};
		return node;
	});
}

// ---- Server ----

// Pairs of an object's members, by the units that their names end in.
const members = (object) => Object.entries(object || {}).map(([name, value]) => {
	const [, word, unit] = name.match(/^(.*?)(?:_(bytes|seconds))?$/);
	const text = value === null ? '–' : unit === 'bytes' ? size(value)
		: unit === 'seconds' ? duration(value) : typeof value === 'number' ? group(value) : value;
	const title = word[0].toUpperCase() + word.slice(1).replaceAll('_', ' ');
	return [title.replace(/^(Tls|Http)$/, (short) => short.toUpperCase()), String(text)];
});

function showServer() {
	const { version, driver, pid, start_time_seconds: start, store, cores } = server;
	const cards = [
		['Process', members({ version, driver, process_id: `${pid}`, started: moment(start),
			up_for: age(serverTime() - start) })],
		['Jobs since the start', members(server.totals)],
		['Memory', members(server.memory)],
		['Store', store ? members({ ...store, up: store.up ? 'yes' : 'no' })
			: [['None', 'jobs are in memory alone']]],
		['Connections', members(server.connections)],
		['Cores', cores.map((core) => [`Core ${core.core}`, `${percentage(core.busy)} busy, ` +
			`${plural(core.connections, 'connection')}, ${plural(core.jobs, 'job')}, ` +
			plural(core.functions, 'function')])],
		['Listeners', (server.listeners || []).map((listener, i) => [String(i + 1), listener])],
		['Certificates', (server.certificates || []).map(({ file, not_after }) =>
			[file, `until ${moment(not_after)}`])],
		['Options that differ from the defaults', Object.entries(server.options || {})
			.map(([name, value]) => [name, String(value)])],
	];
	reconcile($('server'), cards.filter(([, pairs]) => pairs.length), ([title]) => title, (title) => {
		const list = make('dl', 'facts');
		const node = make('section', 'card', make('h3', '', title), list);
		node.update = ([, pairs]) => facts(list, pairs);
		return node;
	});
}

// ---- Actions ----

let quiet = 0; // the timer that clears the status line
let asking = null; // what the open dialog does

function say(text, wrong) {
	clearTimeout(quiet);
	$('status').className = wrong ? 'grave' : '';
	put($('status'), text);
	if (!wrong) quiet = setTimeout(put, 15000, $('status'), '');
}

// Opens the dialog. `act` returns what the status line says once it is done.
function ask({ title, content, confirm, leave, className = 'danger solid', ready, act }) {
	asking = { act, ready: ready || (() => true) };
	put($('dialog-title'), title);
	put($('dialog-error'), '');
	put($('dialog-leave'), leave);
	put($('dialog-confirm'), confirm || '');
	$('dialog-body').replaceChildren(...content);
	$('dialog-confirm').hidden = !act;
	$('dialog-confirm').className = className;
	$('dialog-confirm').disabled = !asking.ready();
	$('dialog').showModal();
	($('dialog-body').querySelector('input') || $('dialog-leave')).focus();
}

async function confirmed(event) {
	event.preventDefault();
	const mine = asking;
	if (!mine?.act || !mine.ready()) return;
	$('dialog-confirm').disabled = true;
	put($('dialog-error'), '');
	try {
		const text = await mine.act();
		if (asking === mine) $('dialog').close();
		say(text);
	} catch (error) {
		if (asking === mine) put($('dialog-error'), explain(error));
		else say(explain(error), true);
	}
	if (asking === mine) $('dialog-confirm').disabled = false;
	load(true);
}

const paragraph = (text) => make('p', '', text);
const remove = (path, parameters) => request(path, parameters, { method: 'DELETE' });

function cancelJob(job) {
	ask({
		title: `Cancel ${job.handle}?`,
		content: [
			facts(make('dl', 'facts'), [
				['Function', nameOf(job.function)], ['State', STATES[job.state] || job.state],
				['Unique', job.unique === null ? '–' : nameOf(job.unique)], ['Age', age(job.age_seconds)],
			]),
			paragraph('This concerns 1 job. Its clients are told that it failed.' + (job.state ===
				'running' ? ' Its worker goes on, and what it still sends is dropped.' : '')),
		],
		confirm: 'Cancel job',
		leave: 'Keep it',
		act: async () => {
			await remove(`jobs/${keyOf(job.handle)}`);
			cancelled.add(job.handle);
			return `Cancelled ${job.handle}.`;
		},
	});
}

async function showPayload({ handle, bytes }) {
	try {
		const { payload, payload_cut: cut } = await request(`jobs/${keyOf(handle)}`, { payload: 1 });
		const raw = typeof payload !== 'string';
		const block = make('pre', '', raw ? textOf(bytesOf(payload)) : payload);
		block.tabIndex = 0;
		block.setAttribute('role', 'region');
		block.setAttribute('aria-label', 'Payload');
		const notes = [size(bytes), raw && 'not UTF-8: other bytes as \\xNN', cut && 'cut at 64 KiB'];
		ask({ title: `Payload of ${handle}`, leave: 'Close',
			content: [paragraph(notes.filter(Boolean).join('; ')), block] });
	} catch (error) {
		say(explain(error), true);
	}
}

function purge(which, waiting) {
	const { fn } = state;
	const handles = listed.map(({ handle }) => handle);
	const jobs = plural(waiting ?? handles.length, waiting ? `${STATES[which]} job` : 'listed job');
	const raw = textOf(bytesOfKey(fn));
	const input = make('input');
	input.autocomplete = 'off';
	input.spellcheck = false;
	ask({
		title: `Purge ${jobs}?`,
		content: [
			paragraph((which === 'listed' ? 'The jobs in the table are cancelled one by one.'
				: `All ${STATES[which]} jobs of the function are cancelled.`) +
				' Their clients are told that they failed.'),
			make('label', '', 'To confirm, type the function’s name: ',
				nameNode('strong', readable(raw)), input),
		],
		confirm: `Purge ${jobs}`,
		leave: 'Keep them',
		ready: () => [raw, readable(raw)].includes(input.value),
		act: async () => {
			if (which === 'listed') return removeAll(handles);
			const { removed } = await remove(`functions/${fn}/jobs`, { state: which });
			return `Purged ${plural(removed, `${STATES[which]} job`)}.`;
		},
	});
}

async function removeAll(handles) {
	let done = 0;
	for (const handle of handles) {
		try {
			await remove(`jobs/${keyOf(handle)}`);
			done += 1;
			cancelled.add(handle);
		} catch (error) {
			if (error.status === 404) continue; // it has ended by itself
			throw new Refusal(error.status, { code: `${done} cancelled`, message: explain(error) });
		}
	}
	return `Cancelled ${group(done)} of ${plural(handles.length, 'job')}.`;
}

function limitQueue() {
	const { fn } = state;
	const waiting = parts(current.jobs_queued, 'none');
	const inputs = ['high', 'normal', 'low'].map((priority) => {
		const input = make('input');
		Object.assign(input, { type: 'number', min: 0, max: 4294967295, required: true,
			name: priority, value: current.maxqueue[priority] });
		return input;
	});
	ask({
		title: 'Limit the queue',
		content: [
			paragraph('A submission is refused while so many jobs of its priority wait; 0 is no limit. ' +
				`Jobs that wait now stay: ${waiting}.`),
			...inputs.map((input) => make('label', '', `Limit for ${input.name} priority`, input)),
		],
		confirm: 'Set limits',
		leave: 'Leave as it is',
		className: 'primary',
		ready: () => inputs.every((input) => input.checkValidity()),
		act: async () => {
			const numbers = Object.fromEntries(inputs.map(({ name, value }) => [name, Number(value)]));
			await request(`functions/${fn}/maxqueue`, {}, { method: 'PUT', body: numbers });
			return `Queue limit: ${limits(numbers)}.`;
		},
	});
}

// ---- Live ----

let mode = 'start'; // start, live, polling, paused, gone, refused
let source = null; // the EventSource
let sourceTried = 0; // ms
let updated = 0; // the last event, ms
let lastAnswer = Date.now();
let timer = 0;

function setMode(next) {
	const since = new Date(lastAnswer).toLocaleTimeString();
	if (next === 'gone' && mode !== 'gone') say(`The server doesn’t answer since ${since}.`, true);
	if (mode === 'gone' && next !== 'gone') say(next === 'paused' ? '' : 'The server answers again.');
	mode = next;
	$('live').dataset.mode = mode;
	document.body.classList.toggle('gone', mode === 'gone');
	put($('live-text'), {
		start: 'Connecting', live: 'Live', polling: 'Polling every 2 s', paused: 'Paused while hidden',
		gone: `Server gone since ${since}`, refused: 'Refused',
	}[mode]);
}

function answered() {
	lastAnswer = Date.now();
	if (mode === 'gone' || mode === 'start') setMode('polling');
}

function failed(error) {
	if (mode === 'paused') return;
	if (!(error instanceof Refusal)) {
		setMode('gone');
		return;
	}
	answered();
	put($('problem'), explain(error));
	blocked = error.status < 500 && error.status !== 429;
	if (blocked && !server) setMode('refused');
}

function connect() {
	source?.close();
	sourceTried = Date.now();
	source = new EventSource('/api/v1/events');
	source.addEventListener('update', onUpdate);
	source.addEventListener('error', () => {
		if (mode !== 'live') return;
		setMode('polling');
		poll();
	});
}

function onUpdate({ data }) {
	const { time, server: fresh, changed, more } = JSON.parse(data);
	updated = lastAnswer = Date.now();
	setMode('live');
	skew = time - updated / 1000;
	learn(fresh);
	if (more) dirty = scanDue = true;
	for (const f of changed) {
		const key = keyOf(f.function);
		note(f, key);
		if (state.view === 'functions') {
			const row = body.byKey.get(key);
			row?.update(f);
			if (!row || sorting().sort !== 'function') dirty = true;
		} else if (key === state.fn && current) {
			current = f;
			showSummary();
		}
	}
	showAlarms();
}

async function poll() {
	try {
		await loadServer();
		await load(false);
	} catch (error) {
		failed(error);
	}
}

function tick() {
	const now = Date.now();
	if (mode === 'live' && now - updated > 5000) setMode('polling');
	const live = mode === 'live';
	if (!live && source.readyState === EventSource.CLOSED && now - sourceTried > 10000) connect();
	const often = dirty || !live || state.view === 'jobs' || state.view === 'workers';
	if (now - serverLoaded >= (live ? 10000 : PERIOD - 100)) poll();
	else if (now - loaded >= (often ? Math.max(PERIOD - 100, 5 * cost) : 10000)) load(false);
	if (mode === 'gone' || !server) return;
	if (now - scanned >= (scanDue || !live ? PERIOD : 10000)) scan();
	for (const row of body.byKey.values()) row.show();
	showAlarms();
}

async function resume() {
	setMode(mode === 'paused' ? 'polling' : mode);
	try {
		await loadServer();
	} catch (error) {
		failed(error);
	}
	if (document.hidden || mode === 'refused') return;
	clearInterval(timer);
	timer = setInterval(tick, 1000);
	connect();
	if (!server) return;
	blocked = false;
	load(true);
	scan();
}

function pause() {
	clearInterval(timer);
	source?.close();
	loading?.abort();
	loading = null;
	setMode('paused');
}

// ---- Start ----

let typing = 0;
filter.addEventListener('input', () => {
	clearTimeout(typing);
	typing = setTimeout(() => keep({ filter: filter.value, limit: FIRST }), 60);
});
filter.addEventListener('keydown', (event) => {
	if (event.key !== 'Escape') return;
	event.preventDefault();
	filter.value = '';
	filter.dispatchEvent(new Event('input'));
});
filter.addEventListener('focus', () => $('count').setAttribute('aria-live', 'polite'));
filter.addEventListener('blur', () => $('count').removeAttribute('aria-live'));
$('more').addEventListener('click', () => {
	keep({ limit: Math.min(MOST, state.limit + FIRST * (state.limit < 200 ? 1 : 4)) });
});
$('dialog-form').addEventListener('submit', confirmed);
$('dialog-form').addEventListener('input', () => {
	$('dialog-confirm').disabled = !asking.ready();
});
$('dialog-leave').addEventListener('click', () => $('dialog').close());
$('dialog').addEventListener('close', () => {
	if ($('dialog').open) return; // the event comes later, and a dialog may be open again
	asking = null;
	$('dialog-body').replaceChildren();
	if (document.activeElement === document.body) $('title').focus({ preventScroll: true });
});
document.addEventListener('keydown', (event) => {
	if (event.key !== '/' || event.ctrlKey || event.metaKey) return;
	if (event.target.closest('input, dialog')) return;
	event.preventDefault();
	filter.select();
});
document.addEventListener('click', (event) => {
	const link = event.target.closest('a');
	if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
	if (link.className === 'skip') {
		event.preventDefault();
		$('main').focus();
	} else if (link.origin === location.origin && link.pathname === '/') {
		event.preventDefault();
		open(link.href);
	}
});
addEventListener('popstate', () => {
	const { scroll } = history.state || {};
	arrive(() => scrollTo(0, scroll || 0));
});
document.addEventListener('visibilitychange', () => (document.hidden ? pause() : resume()));

history.scrollRestoration = 'manual';
arrive();
if (document.hidden) pause();
else resume();
