// The monitor page: shows what /api/v1/* of its server says and sends an operator's actions.
// A function's key is its name in percent-encoded bytes: the same text in addresses, requests and
// maps, also where the name isn't UTF-8. Names and payloads enter the document as text alone.
// Rows are patched in place, so that focus, selection and scroll position stay.
'use strict';

const FIRST = 50; // rows at first, and more at each "Show more"
const MOST = 1000; // the server's largest `limit`
const PERIOD = 2000; // ms between two fetches of a list at least
const OLD = 300; // s: a job that waits longer is an alarm

const $ = id => document.getElementById(id);
const focus = node => node.focus({ preventScroll: true });
const seconds = () => performance.now() / 1000;
const serverTime = () => Date.now() / 1000 + skew;

// Elements.

function make(tag, className = '', ...children) {
	const node = document.createElement(tag);
	node.className = className;
	node.append(...children);
	return node;
}

function button(className, click, ...children) {
	const node = make('button', className, ...children);
	node.type = 'button';
	node.onclick = click;
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
	node.textContent = typeof text === 'number' ? group(text) : text;
}

// Makes the children of `parent` those of `list`, in its order. `build` returns an element with a
// method `update`; an element whose key stays is kept.
function reconcile(parent, list, key, build) {
	const nodes = (parent.byKey ||= new Map());
	const wanted = new Map(list.map(item => [key(item), item]));
	for (const [id, node] of nodes) {
		if (wanted.has(id)) continue;
		if (node.contains(document.activeElement)) {
			const near = node.nextElementSibling || node.previousElementSibling;
			focus(near?.querySelector('button, a') || $('title'));
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
			if (focused) focus(focused);
		}
	}
}

// A list of names and values.
function facts(list, pairs) {
	reconcile(list, pairs, ([name]) => name, name => {
		const value = make('dd');
		const node = make('div', '', make('dt', '', name), value);
		node.update = ([, text]) => put(value, text);
		return node;
	});
	return list;
}

function sparkline(parent) {
	const node = $('spark').content.cloneNode(true);
	const [area, line] = node.querySelectorAll('path');
	parent.append(node);
	let shown = null;
	return history => {
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

// Names.

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const hex = (number, width) => number.toString(16).padStart(width, '0');

const bytesOf = name => (typeof name === 'string' ? encoder.encode(name)
	: Uint8Array.from(atob(name.base64), c => c.charCodeAt(0)));

const percent = bytes => Array.from(bytes, byte => {
	const c = String.fromCharCode(byte);
	return /[\w.~-]/.test(c) ? c : `%${hex(byte, 2).toUpperCase()}`;
}).join('');

const keyOf = name => percent(bytesOf(name));

// The bytes of a key, also of one that a browser or a person wrote otherwise.
const bytesOfKey = key => Uint8Array.from(key.replaceAll('+', ' ').split(/(%[0-9a-f]{2})/i)
	.flatMap((part, i) => (i % 2 ? parseInt(part.slice(1), 16) : [...encoder.encode(part)])));

function textOf(bytes) {
	try {
		return decoder.decode(bytes);
	} catch {
		return Array.from(bytes, byte =>
			(byte > 31 && byte < 127 ? String.fromCharCode(byte) : `\\x${hex(byte, 2)}`)).join('');
	}
}

// Control and direction characters as escapes, so that a name can't hide what it is.
const INVISIBLE = /[\0-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const readable = text => text.replace(INVISIBLE, c => {
	const code = c.charCodeAt(0);
	return { '\n': '\\n', '\t': '\\t' }[c] || `\\u${hex(code, 4)}`;
});
const nameOf = name => readable(typeof name === 'string' ? name : textOf(bytesOf(name)));
const nameOfKey = key => readable(textOf(bytesOfKey(key)));

// Numbers.

const group = number => String(number).replace(/\B(?=(\d{3})+$)/g, '\u202f');
const plural = (number, word) => `${group(number)} ${word}${number === 1 ? '' : 's'}`;
const percentage = part => `${Math.round(part * 100) || (part && '<1')} %`;
const sum = numbers => Object.values(numbers).reduce((total, number) => total + number, 0);

function age(value) {
	const s = Math.max(0, Math.floor(value));
	const two = (large, name, small, other) =>
		`${Math.floor(s / large)} ${name} ${Math.floor((s % large) / small)} ${other}`;
	if (s < 60) return `${s} s`;
	if (s < 3600) return two(60, 'min', 1, 's');
	return s < 86400 ? two(3600, 'h', 60, 'min') : two(86400, 'd', 3600, 'h');
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

const capital = word => word[0].toUpperCase() + word.slice(1);
const moment = at => new Date(at * 1000).toLocaleString();

// The parts of a number that aren't 0: "3 high, 12 normal".
const parts = (numbers, none = '') => Object.entries(numbers).filter(([, number]) => number)
	.map(([name, number]) => `${group(number)} ${name.replace('_', ' ')}`).join(', ') || none;

// State: what the address says.

const STATES = { running: 'running', queued: 'waiting', delayed: 'delayed', retrying: 'retrying' };
const titleOf = view => (view === 'dead' ? 'Dead letters' : capital(view));

let state = {};
let server = null; // the last answer of /api/v1/server, patched by events
let current = null; // the function of the view
let listed = []; // the jobs or dead letters that are shown
let skew = 0; // the server's clock minus this one, s
let automatic = 'function'; // the sort of functions when the address names none
const may = () => server?.may.admin;

function parse() {
	const raw = Object.fromEntries([...location.search.matchAll(/(\w+)=([^&]*)/g)]
		.map(([, name, value]) => [name, value]));
	const fn = raw.function === undefined ? null : percent(bytesOfKey(raw.function));
	let view = Object.hasOwn(COLUMNS, raw.view) ? raw.view : 'functions';
	if (view === 'jobs' && fn === null) view = 'functions';
	return {
		view,
		fn: view === 'functions' || view === 'server' ? null : fn,
		state: view === 'jobs' && Object.hasOwn(STATES, raw.state) ? raw.state : null,
		filter: textOf(bytesOfKey(raw.filter || '')).slice(0, 512),
		sort: COLUMNS[view].some(([, sort]) => sort && sort === raw.sort) ? raw.sort : null,
		order: ['asc', 'desc'].includes(raw.order) ? raw.order : null,
		limit: history.state?.limit || FIRST,
	};
}

// NAME=VALUE of those that have a value; values are encoded already.
const query = parameters => Object.entries(parameters)
	.filter(([, value]) => value != null && value !== '')
	.map(([name, value]) => `${name}=${value}`).join('&');

function address({ view, fn, state: which, filter, sort, order }) {
	const text = query({
		view: view === 'functions' ? null : view, function: fn, state: which,
		filter: filter && keyOf(filter), sort, order: sort && order,
	});
	return text ? `/?${text}` : '/';
}

const jobsOf = fn => address({ view: 'jobs', fn });
const usual = sort => (['function', 'address', 'since'].includes(sort) ? 'asc' : 'desc');

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
	focus($('title'));
}

// Requests.

class Refusal extends Error {
	constructor(status, { code = `HTTP ${status}`, message = '', remedy = '' }) {
		super(`${code}: ${message} ${remedy}`);
		this.status = status;
	}
}

async function request(path, parameters, { method = 'GET', body, signal } = {}) {
	const signals = [AbortSignal.timeout(method === 'GET' ? 8000 : 60000), signal].filter(Boolean);
	const headers = { 'X-Ringgear': 1, 'Content-Type': 'application/json' };
	const answer = await fetch(`/api/v1/${path}${parameters ? `?${query(parameters)}` : ''}`,
		{ method, headers, body: body && JSON.stringify(body), signal: AbortSignal.any(signals) });
	if (answer.ok) return answer.status === 204 ? null : answer.json();
	const told = await answer.json().catch(() => ({}));
	throw new Refusal(answer.status, told.error || {});
}

const explain = error => (error instanceof Refusal ? error.message
	: `The server doesn’t answer (${error.message}).`);

// Alarms.

const alarms = new Map(); // key -> {key, f, at}: functions in trouble, wherever they were seen

// What is wrong with a function whose numbers are `later` seconds old.
function troubles(f, later) {
	const found = [];
	const add = (grave, tag, text) => found.push({ grave, tag, text });
	const waiting = sum(f.jobs_queued);
	const oldest = waiting && f.queue_oldest_age_seconds + later;
	// A pause is an operator's choice.
	if (waiting && !f.workers && !f.paused) {
		add(true, 'no workers', `${plural(waiting, 'job')} waiting and no workers`);
	}
	if (oldest > OLD && !f.paused) add(true, 'old jobs', `oldest waits ${age(oldest)}`);
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
	const { store, memory, cores, certificates, cluster } = server;
	if (cluster?.suspended) {
		add(true, 'Suspended', 'no stored job is handed out: the database is out of reach');
	}
	if (cluster?.orphaned) {
		add(true, 'Servers', `${plural(cluster.orphaned, 'partition')} not taken over: too little memory`);
	}
	if (store && !store.up) {
		add(true, `Store ${store.kind}`, `is down; ${plural(store.pending_operations, 'operation')} ` +
			`pending, the oldest for ${age(store.oldest_pending_seconds)}`);
	}
	const used = memoryShare(memory);
	if (used > 0.8) {
		add(used > 0.95, 'Memory', `${percentage(used)} of ${size(memory.limit_bytes)} used; ` +
			'at the limit submissions are refused');
	}
	for (const { core, busy } of cores) {
		if (busy > 0.9) add(false, `Core ${core}`, `is ${percentage(busy)} busy`);
	}
	for (const { file, not_after } of certificates) {
		const left = not_after - serverTime();
		if (left < 14 * 86400) {
			add(left < 2 * 86400, `Certificate ${file}`,
				left > 0 ? `expires in ${age(left)}` : `expired ${age(-left)} ago`);
		}
	}
	return found;
}

function alarmRow(key) {
	const text = make('span');
	const title = nameNode(key.startsWith('/') ? 'a' : 'strong');
	const node = make('li', '', title, ' ', text);
	if (title.href === '') title.href = key;
	node.update = item => {
		node.className = item.grave ? 'grave' : 'mild';
		put(title, item.title);
		put(text, item.text);
	};
	return node;
}

function showAlarms() {
	const list = [...alarms.values()].map(({ key, f, at }) => {
		const found = troubles(f, seconds() - at);
		return {
			key: jobsOf(key), grave: found.some(({ grave }) => grave),
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
		const answers = await Promise.all(sorts.map(sort =>
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

// Header.

for (const [name, title = capital(name)] of [['waiting'], ['running'], ['workers'],
	['rate', 'Jobs per second'], ['failed', 'Failures per second'], ['memory'], ['store'],
	['core', 'Busiest core'], ['connections']]) {
	const big = make('span', 'big', '–');
	big.id = `t-${name}`;
	$('totals').append(make('div', name === 'rate' ? 'wide' : '', make('dt', '', title),
		make('dd', '', big, ' ', make('span', 'sub'))));
}
const meter = make('span', 'meter', make('span'));
Object.assign(meter, { role: 'meter', ariaLabel: 'Memory used', ariaValueNow: 0 });
$('t-memory').parentNode.append(meter);
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
		failed: [rate(server.rate.failed),
			`${group(totals.failed)} since start, ${group(server.dead.count)} dead`],
		memory: [size(memory.used_bytes), memory.limit_bytes
			? `${percentage(used)} of ${size(memory.limit_bytes)}` : 'no limit'],
		store: store ? [store.up ? 'up' : 'down',
			`${store.kind}, ${group(store.pending_operations)} pending`] : ['none', 'jobs in memory'],
		core: [percentage(busiest.busy), `core ${busiest.core} of ${cores.length}`],
		connections: [sum(connections), parts(connections)],
	};
	for (const [name, [main, below = '']] of Object.entries(tiles)) {
		const big = $(`t-${name}`);
		put(big, main);
		put(big.nextElementSibling, below);
	}
	showRate(server.history);
	$('t-store').classList.toggle('grave', store?.up === false);
	meter.hidden = !memory.limit_bytes;
	meter.classList.toggle('high', used > 0.8);
	meter.ariaValueNow = Math.round(used * 100);
	meter.firstElementChild.style.width = `${Math.min(100, used * 100)}%`;
	put($('identity'), `${server.version} on ${location.host}, up ` +
		age(serverTime() - server.start_time_seconds));
	if (state.view === 'server') showServer();
}

// Takes over members of /api/v1/server.
function learn(fresh) {
	server = { ...server, ...fresh };
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

// Tables.
// A column: title, sort key, class, and a function that fills a new cell and returns the function
// that updates it.

const only = value => cell => (item, row) => put(cell, value(item, row));
const field = key => only(item => item[key]);
const nameField = key => only(item => nameOf(item[key] ?? '–'));

// A cell with a main value and a smaller text beside or under it.
const double = (main, below) => cell => {
	const [upper, lower] = ['main', 'sub'].map(name => make('span', name));
	cell.append(upper, ' ', lower);
	return (item, row) => {
		put(upper, main(item, row));
		put(lower, below(item, row));
	};
};

const oldestOf = ({ queue_oldest_age_seconds: oldest }, later) =>
	(oldest === null ? '–' : age(oldest + later));

const pauseOf = ({ paused: { until } }) =>
	(until === null ? 'paused' : `paused for ${age(until - serverTime())}`);

function functionCell(cell) {
	const link = nameNode('a');
	const tags = make('span');
	cell.append(link, ' ', tags);
	return (f, row) => {
		put(link, nameOf(f.function));
		link.href = jobsOf(row.key);
		const found = troubles(f, row.later());
		const grave = found.some(trouble => trouble.grave);
		row.node.className = found.length ? (grave ? 'grave' : 'mild') : '';
		if (f.paused) found.push({ held: true, tag: pauseOf(f) });
		reconcile(tags, found, ({ tag }) => tag.replace(/\d+/g, ''), () => {
			const node = make('span');
			node.update = ({ held, grave: isGrave, tag }) => {
				node.className = `tag ${held ? 'held' : isGrave ? 'grave' : 'mild'}`;
				put(node, tag);
			};
			return node;
		});
	};
}

function rateCell(cell) {
	const number = make('span', 'main');
	cell.append(number, ' ');
	const show = sparkline(cell);
	return f => {
		put(number, rate(f.rate.completed));
		show(f.history);
	};
}

function failing({ rate: { failed, completed } }) {
	return failed > 0 ? `${rate(failed)}/s, ${percentage(failed / (failed + completed))}` : '';
}

// A cell with buttons: text, class, what a click does, and for which rows.
const actionCell = (...actions) => cell => {
	let row = null;
	const nodes = (may() ? actions : []).map(([text, className, act]) =>
		button(`quiet ${className}`, () => act(row), text));
	for (const node of nodes) cell.append(node, ' ');
	return item => {
		row = item;
		nodes.forEach((node, i) => {
			node.ariaLabel ||= `${node.textContent} ${item.handle}`;
			node.hidden = actions[i][3]?.(item) === false;
		});
	};
};

const isEarly = ({ state: which }) => which === 'delayed' || which === 'retrying';

function jobState(job, row) {
	if (job.running_seconds != null) return `for ${age(job.running_seconds + row.later())}`;
	if (job.run_at == null || !isEarly(job)) return '';
	const left = job.run_at - serverTime();
	return `${job.last_reason ? `${job.last_reason}, ` : ''}${left > 0 ? `in ${age(left)}` : 'due'}`;
}

function progress({ status }) {
	if (!status) return '';
	const { numerator, denominator } = status;
	const part = denominator > 0 ? ` (${percentage(numerator / denominator)})` : '';
	return `${numerator} of ${denominator}${part}`;
}

const linksCell = cell => ({ functions, function_count: count }) => {
	const shown = functions.slice(0, 3).map(keyOf);
	const text = `${shown} ${count}`;
	if (cell.shown === text) return;
	cell.shown = text;
	cell.replaceChildren(...shown.flatMap(key => {
		const link = nameNode('a', nameOfKey(key));
		link.href = jobsOf(key);
		return [link, ' '];
	}), count > shown.length ? `and ${group(count - shown.length)} more` : '');
};

const linkCell = cell => {
	const show = linksCell(cell);
	return letter => show({ functions: [letter.function], function_count: 1 });
};

const messageCell = cell => {
	const text = cell.appendChild(make('span', 'clamp'));
	return ({ message }) => put(text, nameOf(message ?? '–'));
};

const runs = worker => worker.running.map((handle, i) => {
	const time = worker.running_seconds?.[i];
	return time === undefined ? handle : `${handle} for ${age(time)}`;
}).join(', ') || '–';

const HANDLE = ['Handle', null, 'first mono', field('handle')];
const ATTEMPTS = ['Attempts', null, 'number', field('attempts')];
const SIZE = ['Size', null, 'number', only(job => size(job.bytes))];
const UNIQUE = ['Unique', null, 'mono any', nameField('unique')];
const PAYLOAD = ['Payload', '', showPayload];
const COLUMNS = {
	functions: [
		['Function', 'function', 'first', functionCell],
		['Waiting', 'waiting', 'number beside split',
			double(f => sum(f.jobs_queued), f => parts(f.jobs_queued))],
		['Oldest', 'oldest', 'number', only((f, row) => oldestOf(f, row.later()))],
		['Running', 'running', 'number', field('jobs_running')],
		['Workers', 'workers', 'number beside busy', double(f => f.workers,
			f => (f.workers_busy ? `${group(f.workers_busy)} busy` : ''))],
		['Delayed', 'delayed', 'number minor', field('jobs_delayed')],
		['Dead', 'dead', 'number minor', field('jobs_dead')],
		['Jobs/s', 'rate', 'number beside rate', rateCell],
		['Failed', 'failed', 'number beside minor fails',
			double(f => sum(f.jobs_failed_total), failing)],
	],
	jobs: [
		HANDLE,
		['State', null, 'tight', double(job => STATES[job.state] || job.state, jobState)],
		['Age', null, 'number', only((job, row) => age(job.age_seconds + row.later()))],
		['Priority', null, 'tight',
			double(job => job.priority, job => (job.background ? 'background' : 'foreground'))],
		ATTEMPTS,
		SIZE,
		UNIQUE,
		['Worker', null, 'any', double(({ worker }) => nameOf(worker?.id ?? '–'),
			({ worker }) => worker?.address ?? '')],
		['Progress', null, 'tight', only(progress)],
		['Actions', null, 'actions',
			actionCell(['Cancel…', 'danger', cancelJob], PAYLOAD, ['Run now', '', ({ handle }) =>
				post(`jobs/${keyOf(handle)}/run`, `${handle} starts now.`), isEarly])],
	],
	dead: [
		HANDLE,
		['Function', null, 'any', linkCell],
		['Died', null, 'number', only((letter, row) => `${age(letter.age_seconds + row.later())} ago`)],
		['Reason', null, '', field('reason')],
		ATTEMPTS,
		SIZE,
		UNIQUE,
		['Worker', null, 'any', nameField('worker')],
		['Message', null, 'any', messageCell],
		['Actions', null, 'actions', actionCell(
			['Requeue…', '', ({ handle }) => letters(true, [handle])], PAYLOAD,
			['Drop…', 'danger', ({ handle }) => letters(false, [handle])])],
	],
	workers: [
		['Address', 'address', 'first mono', double(worker => worker.address, worker =>
			[worker.tls && 'TLS', worker.certificate].filter(Boolean).join(', '))],
		['Id', null, 'any', nameField('id')],
		['Functions', null, 'list', linksCell],
		['Running', 'running', 'mono any', only(runs)],
		['State', null, '', field('state')],
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
	node.role = 'row';
	const row = { key, node, later: () => seconds() - at };
	let item = null;
	let at = 0;
	const updates = COLUMNS[state.view].map(([title, , className, fill], i) => {
		const cell = node.appendChild(make(i ? 'td' : 'th', className));
		cell.role = i ? 'cell' : 'rowheader';
		cell.dataset.label = title;
		return fill(cell);
	});
	node.show = () => updates.forEach(update => update(item, row));
	node.update = fresh => {
		item = fresh;
		at = seconds();
		node.show();
	};
	return node;
}

function showSort() {
	const { sort, order } = sorting();
	for (const cell of table.tHead.rows[0].cells) {
		cell.ariaSort = sort && cell.dataset.sort === sort ? `${order}ending` : null;
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
	reconcile(body, []);
	table.tHead.rows[0].replaceChildren(...COLUMNS[state.view].map(([title, sort, className]) => {
		const cell = make('th', className, sort ? button('sort', () => sortBy(sort), title) : title);
		cell.role = 'columnheader';
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
	$('more').hidden = !more || limit >= MOST || (filter && (view === 'jobs' || view === 'dead'));
	table.hidden = !list.length;
	$('empty').hidden = list.length > 0;
	put($('empty'), filter ? `Nothing matches “${readable(filter)}”.` : {
		functions: 'No functions yet: workers and submissions make them appear.',
		jobs: `No ${STATES[state.state] || ''} jobs.`.replace('  ', ' '),
		workers: 'No workers.',
		dead: 'No dead letters.',
	}[view]);
}

// Views.

let loading = null; // the AbortController of the list's fetch
let loaded = 0; // when it ended, ms
let cost = 0; // how long it took, ms
let dirty = false; // events say that the list has changed
let blocked = false; // the server refused; another address or a new visit tries again
let scanned = 0; // ms
let scanDue = false;
let serverLoaded = 0; // ms
const cancelled = new Set(); // handles, until the view changes
let partitions = []; // the last answer of /api/v1/cluster
let found = 0; // how many jobs or dead letters there are, if that is known

// A glob for just this name.
const globOf = fn => fn?.replace(/%2A|%3F|%5C/g, '%5C$&');

// Each fetches its rows and returns what shows them.
const fetchers = {
	async functions(signal) {
		const answer = await request('functions',
			{ filter: keyOf(state.filter), ...sorting(), limit: state.limit }, { signal });
		return () => {
			for (const f of answer.functions) note(f, keyOf(f.function));
			showList(answer.functions, answer.total, f => keyOf(f.function), 'function');
			showAlarms();
		};
	},

	async jobs(signal) {
		const { fn, view } = state;
		const limit = state.filter ? MOST : state.limit;
		const lists = view === 'dead' ? [{ function: globOf(fn) }]
			: (state.state ? [state.state] : ['running', 'queued', 'delayed'])
				.map(which => ({ function: fn, state: which }));
		const [{ functions }, ...answers] = await Promise.all([
			fn === null ? { functions: [] }
				: request('functions', { match: globOf(fn), limit: 1 }, { signal }),
			...lists.map(list => request(view, { ...list, limit }, { signal })),
		]);
		return () => {
			current = functions[0] || null;
			if (current) note(current, fn);
			listed = answers.flatMap(answer => answer[view])
				.filter(({ handle }) => !cancelled.has(handle));
			const totals = answers.map(answer => answer.total);
			let total = totals.includes(null) ? null : Math.max(listed.length, sum(totals));
			if (state.filter) {
				const text = state.filter.toLowerCase();
				listed = listed.filter(row => [row.handle, row.function, row.unique, row.message,
					row.reason, row.worker?.id ?? row.worker, row.worker?.address].some(field =>
					field != null && nameOf(field).toLowerCase().includes(text)));
				total = listed.length;
			}
			listed = listed.slice(0, limit);
			found = total;
			showSummary();
			showList(listed, total, ({ handle }) => handle, view === 'jobs' ? 'job' : 'dead letter');
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

	async server(signal) {
		({ partitions } = await request('cluster', null, { signal }));
		return showServer;
	},
};

fetchers.dead = fetchers.jobs;

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
	for (const name of ['functions', 'workers', 'dead', 'server']) {
		$(`nav-${name}`).ariaCurrent = view === name ? 'page' : null;
	}
	filter.ariaLabel = `Filter ${titleOf(view).toLowerCase()}`;
	filter.placeholder = `${filter.ariaLabel} ( / )`;
	filter.value = state.filter;
	$('title').replaceChildren(titleOf(view), ...(fn === null ? []
		: [view === 'workers' ? ' with ' : ' of ', nameNode('span', nameOfKey(fn))]));
	$('search').hidden = !lists;
	table.hidden = !lists;
	$('server').hidden = lists;
	for (const id of ['summary', 'tabs', 'more', 'empty']) $(id).hidden = true;
	for (const id of ['count', 'problem']) put($(id), '');
	reconcile($('actions'), []);
	if (lists) showHead();
	load(true, then);
}

// Jobs of a function.

const summary = make('dl', 'facts');
$('summary').append(summary);
const showHistory = sparkline($('summary'));

const percentiles = times => (times ? ['p50', 'p90', 'p99'].map(name =>
	`${name} ${duration(times[name])}`).join(', ') : '–');
const limits = numbers => parts(numbers, 'no limit');

function showSummary() {
	const f = current;
	$('summary').hidden = !f;
	if (f) {
		facts(summary, [
			...(f.paused ? [['Assignment', pauseOf(f)]] : []),
			['Oldest waiting', oldestOf(f, 0)],
			['Workers', `${group(f.workers)}, ${group(f.workers_busy)} busy`],
			['Time waiting', percentiles(f.wait)],
			['Time running', percentiles(f.run)],
			['Submitted', parts({ ...f.jobs_submitted_total, joined: f.jobs_joined_total }, '0')],
			['Completed', `${group(f.jobs_completed_total)}, ${rate(f.rate.completed)} a second`],
			['Failed', parts(f.jobs_failed_total, '0')],
			['Died', parts(f.jobs_dead_total, '0')],
			['Run again', parts(f.jobs_rerun_total, '0')],
			['Refused', parts(f.jobs_refused_total, '0')],
			['Queue limit', limits(f.maxqueue)],
		]);
		showHistory(f.history);
	}
	if (state.fn !== null) showTabs();
	showActions();
}

function showTabs() {
	const { fn, view, state: which } = state;
	const f = current || { jobs_queued: {} };
	const tab = (text, wanted, count) => ({ text, count, now: view === 'jobs' && wanted === which,
		href: address({ view: 'jobs', fn, state: wanted }) });
	$('tabs').hidden = false;
	reconcile($('tabs'), [
		tab('All', null, ''),
		tab('Waiting', 'queued', sum(f.jobs_queued)),
		tab('Running', 'running', f.jobs_running),
		tab('Delayed', 'delayed', f.jobs_delayed),
		tab('Retrying', 'retrying', f.jobs_retrying),
		{ text: 'Dead letters', count: f.jobs_dead, now: view === 'dead',
			href: address({ view: 'dead', fn }) },
		{ text: 'Its workers', count: '', href: address({ view: 'workers', fn }) },
	], ({ text }) => text, text => {
		const count = make('span', 'sub');
		const node = make('a', '', text, ' ', count);
		node.update = item => {
			put(count, item.count ?? 0);
			node.href = item.href;
			node.ariaCurrent = item.now || null;
		};
		return node;
	});
}

function showActions() {
	const { fn, view, filter: text } = state;
	const list = [];
	const add = (text, act, className = '') => list.push({ text, act, className });
	const handles = listed.map(({ handle }) => handle);
	// Browsers resolve these two names in a path, so that requests would go elsewhere.
	const apart = fn === '.' || fn === '..';
	if (may() && view === 'dead') {
		const count = found ?? listed.length;
		const some = text || found === null ? handles : null;
		if (count) {
			add(`Requeue ${group(count)}…`, () => letters(true, some, count));
			add(`Drop ${group(count)}…`, () => letters(false, some, count), 'danger');
		}
	} else if (may() && current) {
		for (const [which, count, some] of [['queued', sum(current.jobs_queued)],
			['delayed', current.jobs_delayed], ['retrying', current.jobs_retrying],
			['listed', listed.length, handles]]) {
			if (count && (some || !apart)) {
				add(`Purge ${group(count)} ${STATES[which] || which}…`, () => purge(which, count, some), 'danger');
			}
		}
		if (!apart) {
			add('Limit the queue…', limitQueue);
			if (current.paused) add('Resume', () => post(`functions/${fn}/resume`, 'Resumed.'));
			else add('Pause…', pauseFunction);
		}
	}
	reconcile($('actions'), list, ({ text }) => text.replace(/\d.*\d|\d/, ''), () => {
		let act = null;
		const node = button('', () => act());
		node.update = item => {
			act = item.act;
			node.className = item.className;
			put(node, item.text);
		};
		return node;
	});
}

// Server.

// Pairs of an object's members, by the units that their names end in.
const members = object => Object.entries(object).map(([name, value]) => {
	const [, word, unit] = name.match(/^(.*?)(?:_(bytes|seconds))?$/);
	return [capital(word.replaceAll('_', ' ')), value === null ? '–' : unit === 'bytes' ? size(value)
		: unit === 'seconds' ? duration(value) : value];
});

function showServer() {
	const { own } = server.cluster || {};
	const shared = partitions.length > 1 || server.options.cluster ? partitions : [];
	const { version, driver, pid, start_time_seconds: start, store, cores } = server;
	const cards = [
		['Process', members({ version, driver, process_id: `${pid}`, started: moment(start),
			up_for: age(serverTime() - start) })],
		['Jobs since the start', members(server.totals)],
		['Dead letters', members(server.dead)],
		['Memory', members(server.memory)],
		['Store', store ? members({ ...store, up: store.up ? 'yes' : 'no' })
			: [['None', 'jobs are in memory alone']]],
		['Servers', shared.map(({ id, name, state: which, address: at, beat_age_seconds: beat, jobs }) =>
			[`${id} ${nameOf(name ?? '–')}`, [own.includes(id) && 'this server', which, at,
				beat !== null && `beat ${duration(beat)} ago`, plural(jobs, 'job')]
				.filter(Boolean).join(', ')])],
		['Connections', members(server.connections)],
		['Cores', cores.map(core => [`Core ${core.core}`, `${percentage(core.busy)} busy, ` +
			`${plural(core.connections, 'connection')}, ${plural(core.jobs, 'job')}, ` +
			plural(core.functions, 'function')])],
		['Listeners', server.listeners.map((listener, i) => [i + 1, listener])],
		['Certificates', server.certificates.map(({ file, not_after }) =>
			[file, `until ${moment(not_after)}`])],
		['Changed options', Object.entries(server.options)],
	];
	reconcile($('server'), cards.filter(([, pairs]) => pairs.length), ([title]) => title, title => {
		const list = make('dl', 'facts');
		const node = make('section', 'card', make('h3', '', title), list);
		node.update = ([, pairs]) => facts(list, pairs);
		return node;
	});
}

// Actions.

let quiet = 0; // the timer that clears the status line
let asking = null; // what the open dialog does
const go = $('dialog-confirm');

function say(text, wrong) {
	clearTimeout(quiet);
	$('status').className = wrong ? 'grave' : '';
	put($('status'), text);
	if (!wrong) quiet = setTimeout(put, 15000, $('status'), '');
}

// Opens the dialog. `act` returns what the status line says once it is done.
function ask({ title, content, confirm = '', className = 'danger solid', ready = () => true, act,
	leave = 'Leave as it is' }) {
	asking = { act, ready };
	put($('dialog-title'), title);
	put($('dialog-error'), '');
	put($('dialog-leave'), leave);
	put(go, confirm);
	$('dialog-body').replaceChildren(...content);
	go.hidden = !act;
	go.className = className;
	go.disabled = !asking.ready();
	$('dialog').showModal();
	($('dialog-body').querySelector('input') || $('dialog-leave')).focus();
}

async function confirmed(event) {
	event.preventDefault();
	const mine = asking;
	if (!mine?.act || !mine.ready()) return;
	go.disabled = true;
	put($('dialog-error'), '');
	try {
		const text = await mine.act();
		if (asking === mine) $('dialog').close();
		say(text);
	} catch (error) {
		if (asking === mine) put($('dialog-error'), explain(error));
		else say(explain(error), true);
	}
	if (asking === mine) go.disabled = false;
	load(true);
}

const paragraph = text => make('p', '', text);
const send = (method, path, body) => request(path, null, { method, body });

function cancelJob(job) {
	ask({
		title: `Cancel ${job.handle}?`,
		content: [paragraph('This concerns 1 job. Its clients are told that it failed.' + (job.state ===
			'running' ? ' Its worker goes on, and what it still sends is dropped.' : ''))],
		confirm: 'Cancel job',
		act: async () => {
			await send('DELETE', `jobs/${keyOf(job.handle)}`);
			cancelled.add(job.handle);
			return `Cancelled ${job.handle}.`;
		},
	});
}

// Sends what needs no confirmation.
async function post(path, done) {
	try {
		await send('POST', path);
		say(done);
	} catch (error) {
		say(explain(error), true);
	}
	load(true);
}

async function showPayload({ handle, bytes, message }) {
	try {
		const { payload, payload_cut: cut } =
			await request(`${state.view}/${keyOf(handle)}`, { payload: 1 });
		const raw = typeof payload !== 'string';
		const block = make('pre', '', raw ? textOf(bytesOf(payload)) : payload);
		Object.assign(block, { tabIndex: 0, role: 'region', ariaLabel: 'Payload' });
		const notes = [size(bytes), raw && 'not UTF-8: other bytes as \\xNN', cut && 'cut at 64 KiB'];
		ask({ title: `Payload of ${handle}`, leave: 'Close',
			content: [paragraph(notes.filter(Boolean).join('; ')), block,
				...(message == null ? [] : [paragraph(`Message: ${nameOf(message)}`)])] });
	} catch (error) {
		say(explain(error), true);
	}
}

// Cancels jobs: those with `handles`, or all in a state.
function purge(which, count, handles) {
	const { fn } = state;
	const raw = textOf(bytesOfKey(fn));
	const jobs = number => plural(number, `${STATES[which] || which} job`);
	const input = Object.assign(make('input'), { autocomplete: 'off', spellcheck: false });
	ask({
		title: `Purge ${jobs(count)}?`,
		content: [
			paragraph('They are cancelled, and their clients are told that they failed.'),
			make('label', '', 'To confirm, type the function’s name: ',
				nameNode('strong', readable(raw)), input),
		],
		confirm: `Purge ${jobs(count)}`,
		ready: () => [raw, readable(raw)].includes(input.value),
		act: async () => {
			const { removed } = await (handles
				? each(handles, handle => send('DELETE', `jobs/${keyOf(handle)}`))
				: send('DELETE', `functions/${fn}/jobs?state=${which}`));
			return `Purged ${jobs(removed)}.`;
		},
	});
}

async function each(handles, act) {
	let done = 0;
	for (const handle of handles) {
		try {
			const answer = await act(handle);
			if (answer?.done === 0) continue;
			done += 1;
			cancelled.add(handle);
		} catch (error) {
			if (error.status === 404) continue; // it has ended by itself
			throw new Refusal(error.status, { code: `${done} done`, message: explain(error) });
		}
	}
	return { done, removed: done, matched: handles.length };
}

// Requeues or drops dead letters: those with `handles`, or all of the view.
function letters(isRequeue, handles, count = handles.length) {
	const verb = isRequeue ? 'Requeue' : 'Drop';
	const text = plural(count, 'dead letter');
	const glob = globOf(state.fn);
	const all = glob == null ? { all: true }
		: { function: { base64: btoa(String.fromCharCode(...bytesOfKey(glob))) } };
	const change = body =>
		(isRequeue ? send('POST', 'dead/requeue', body) : send('DELETE', 'dead', body));
	ask({
		title: `${verb} ${text}?`,
		content: [paragraph(isRequeue ? 'Each gets all its attempts again. One whose unique key is ' +
			'in use stays.' : 'They are removed for good, with their payloads.')],
		confirm: `${verb} ${text}`,
		className: isRequeue ? 'primary' : 'danger solid',
		act: async () => {
			const { done, matched } = await (handles ? each(handles, handle => change({ handle }))
				: change(all));
			return `${isRequeue ? 'Requeued' : 'Dropped'} ${group(done)} of ` +
				`${plural(matched, 'dead letter')}.`;
		},
	});
}

// A dialog with a field for each name that `values` has. `send` gets the numbers, and returns what
// the status line says.
function askNumbers(title, text, confirm, values, send) {
	const inputs = Object.entries(values).map(([name, value]) => Object.assign(make('input'),
		{ type: 'number', min: 0, max: 4294967295, required: value !== '', name, value }));
	ask({
		title,
		content: [paragraph(text), ...inputs.map(input => make('label', '', input.name, input))],
		confirm,
		className: 'primary',
		ready: () => inputs.every(input => input.checkValidity()),
		act: () => send(Object.fromEntries(inputs.map(({ name, value }) => [name, Number(value)]))),
	});
}

function limitQueue() {
	const { fn } = state;
	askNumbers('Limit the queue',
		'A submission is refused while so many of its priority wait; 0 is no limit. ' +
		`Jobs that wait now stay: ${parts(current.jobs_queued, 'none')}.`,
		'Set limits', current.maxqueue, async body => {
			await send('PUT', `functions/${fn}/maxqueue`, body);
			return `Queue limit: ${limits(body)}.`;
		});
}

function pauseFunction() {
	const { fn } = state;
	askNumbers('Pause the function',
		'No worker gets a job of it. Without a time the pause lasts until it is ended.',
		'Pause', { Minutes: '' }, async ({ Minutes: minutes }) => {
			const body = minutes ? { seconds: minutes * 60 } : {};
			await send('POST', `functions/${fn}/pause`, body);
			return 'Paused.';
		});
}

// Live.

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
	document.body.dataset.mode = mode;
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
	source.onerror = () => {
		if (mode !== 'live') return;
		setMode('polling');
		poll();
	};
}

function onUpdate({ data }) {
	const { time, server: fresh, changed, more } = JSON.parse(data);
	if (!server) return;
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
	const often = dirty || !live || state.view !== 'functions';
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

// Start.

let typing = 0;
filter.oninput = () => {
	clearTimeout(typing);
	typing = setTimeout(() => keep({ filter: filter.value, limit: FIRST }), 60);
};
filter.onkeydown = event => {
	if (event.key !== 'Escape') return;
	event.preventDefault();
	filter.value = '';
	filter.oninput();
};
filter.onfocus = () => { $('count').ariaLive = 'polite'; };
filter.onblur = () => { $('count').ariaLive = null; };
$('more').onclick = () =>
	keep({ limit: Math.min(MOST, state.limit + FIRST * (state.limit < 200 ? 1 : 4)) });
$('dialog-form').onsubmit = confirmed;
$('dialog-form').oninput = () => { go.disabled = !asking.ready(); };
$('dialog-leave').onclick = () => $('dialog').close();
$('dialog').onclose = () => {
	if ($('dialog').open) return; // the event comes later, and a dialog may be open again
	asking = null;
	$('dialog-body').replaceChildren();
	if (document.activeElement === document.body) focus($('title'));
};
document.onkeydown = event => {
	if (event.key !== '/' || event.ctrlKey || event.metaKey) return;
	if (event.target.closest('input, dialog')) return;
	event.preventDefault();
	filter.select();
};
document.onclick = event => {
	const link = event.target.closest('a');
	if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
	if (link.className === 'skip') {
		event.preventDefault();
		$('main').focus();
	} else if (link.origin === location.origin && link.pathname === '/') {
		event.preventDefault();
		open(link.href);
	}
};
onpopstate = () => {
	const { scroll } = history.state || {};
	arrive(() => scrollTo(0, scroll || 0));
};
document.onvisibilitychange = () => (document.hidden ? pause() : resume());

$('icon').href = `data:image/svg+xml,${encodeURIComponent($('logo').outerHTML)
	.replaceAll('currentColor', '%230f7280')}`;
history.scrollRestoration = 'manual';
arrive();
if (document.hidden) pause();
else resume();
