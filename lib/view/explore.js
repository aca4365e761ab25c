"use strict";
// A language model, computed and shown by one page. First part: the model. Second part: the view (from "The view" on).
// Axes, as everywhere in this course: T positions, D width, H heads, K key/value heads, Dh width of a head, F width of
// the MLP, V tokens. A matrix (rows, columns) is one Float32Array, row after row.

// ---- The tokenizer ---------------------------------------------------------------------------------------------------

const utf8 = new TextEncoder(), fromUtf8 = new TextDecoder("utf-8", {fatal: true});

/** GPT-2 writes bytes as letters: those that print in Latin-1 as themselves, the others from U+0100 on. */
const LETTERS = (() => {
  const prints = b => (b > 0x20 && b < 0x7f) || (b > 0xa0 && b < 0x100 && b !== 0xad);
  let next = 256;
  return Array.from({length: 256}, (_, b) => String.fromCharCode(prints(b) ? b : next++));
})();
const BYTE = new Map(LETTERS.map((letter, b) => [letter, b]));

// White space is Unicode's here; JavaScript's own \s has one character more and one less.
const WORD = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

class Tokenizer {
  /** about: {kind, pieces (by id), merges [left, right, joined], added, digits, words, prefix, nfc}; see page.py. */
  constructor(about) {
    Object.assign(this, about);
    this.ids = new Map(about.pieces.map((piece, id) => [piece, id]));
    this.ranks = new Map((about.merges ?? []).map(([a, b, joined], rank) => [a * 2 ** 24 + b, [rank, joined]]));
    this.added = Object.entries(about.added ?? {}).sort((a, b) => b[0].length - a[0].length);
    this.known = new Map();
  }

  /** {ids, unknown}: the text's ids, and the characters that there is no piece for, which are left out. */
  encode(text) {
    text = text.toWellFormed?.() ?? text;
    const ids = [], unknown = new Set();
    if (this.kind === "characters") {
      for (const sign of text) this.ids.has(sign) ? ids.push(this.ids.get(sign)) : unknown.add(sign);
      return {ids, unknown: [...unknown]};
    }
    for (const part of this.cut(text)) {
      if (typeof part === "number") { ids.push(part); continue; }
      for (const word of this.words_of(this.nfc ? part.normalize("NFC") : part)) {
        for (const id of this.merge(word)) id === undefined ? unknown.add(word) : ids.push(id);
      }
    }
    return {ids, unknown: [...unknown]};
  }

  /** The text between tokens that were added to the vocabulary as they are, such as <|endoftext|>, and their ids. */
  cut(text) {
    const parts = [];
    while (text) {
      let at = text.length, found = null;
      for (const [content, id] of this.added) {
        const place = text.indexOf(content);
        if (place >= 0 && place < at) [at, found] = [place, [content, id]];
      }
      if (at) parts.push(text.slice(0, at));
      if (found) parts.push(found[1]);
      text = text.slice(at + (found?.[0].length ?? 0));
    }
    return parts;
  }

  words_of(text) {
    if (this.prefix && text && !text.startsWith(" ")) text = " " + text;
    const parts = this.digits ? text.match(this.digits === "each" ? /\p{N}|\P{N}+/gu : /\p{N}+|\P{N}+/gu) ?? [] : [text];
    return this.words ? parts.flatMap(part => part.match(WORD) ?? []) : parts.filter(Boolean);
  }

  /** Byte-pair encoding: of all neighbours the pair that was learned first becomes one, again and again. */
  merge(word) {
    if (this.known.has(word)) return this.known.get(word);
    const ids = Array.from(utf8.encode(word), byte => this.ids.get(LETTERS[byte]));
    for (;;) {
      let best = Infinity, joined = 0, at = -1;
      for (let i = 0; i + 1 < ids.length; i++) {
        const found = this.ranks.get(ids[i] * 2 ** 24 + ids[i + 1]);
        if (found && found[0] < best) [[best, joined], at] = [found, i];
      }
      if (at < 0) break;
      ids.splice(at, 2, joined);
    }
    if (this.known.size > 20000) this.known.clear();
    this.known.set(word, ids);
    return ids;
  }

  bytes(id) {
    const piece = this.pieces[id] ?? "";
    if (this.kind === "characters" || [...piece].some(letter => !BYTE.has(letter))) return utf8.encode(piece);
    return Uint8Array.from(piece, letter => BYTE.get(letter));
  }

  decode(ids) {
    const bytes = Array.from(ids).flatMap(id => Array.from(this.bytes(id)));
    return new TextDecoder().decode(Uint8Array.from(bytes));
  }

  /** A piece as a person can see it: a space as ␣, part of a character as its bytes. */
  show(id) {
    let text;
    try { text = fromUtf8.decode(this.bytes(id)); } catch {
      return "‹" + Array.from(this.bytes(id), b => b.toString(16).padStart(2, "0")).join(" ") + "›";
    }
    return text.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥")
      .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, c => "‹" + c.codePointAt(0).toString(16).padStart(4, "0") + "›") || "‹›";
  }
}

// ---- The model -------------------------------------------------------------------------------------------------------

/** x Wᵀ + b: x (T, I), W (O, I), b (O,) or nothing → (T, O). Four rows at a time, so that a weight is read once for four. */
function linear(x, T, W, b) {
  const [O, I] = W.shape, w = W.data, y = new Float32Array(T * O);
  for (let t = 0; t < T; t += 4) {
    const left = Math.min(4, T - t);
    const x0 = t * I, x1 = (t + Math.min(1, left - 1)) * I, x2 = (t + Math.min(2, left - 1)) * I, x3 = (t + left - 1) * I;
    for (let o = 0; o < O; o++) {
      let s0 = b ? b.data[o] : 0, s1 = s0, s2 = s0, s3 = s0;
      for (let i = 0, at = o * I; i < I; i++, at++) {
        const wi = w[at];
        s0 += wi * x[x0 + i]; s1 += wi * x[x1 + i]; s2 += wi * x[x2 + i]; s3 += wi * x[x3 + i];
      }
      y[t * O + o] = s0;
      if (left > 1) y[(t + 1) * O + o] = s1;
      if (left > 2) y[(t + 2) * O + o] = s2;
      if (left > 3) y[(t + 3) * O + o] = s3;
    }
  }
  return y;
}

/** LayerNorm centres, scales and shifts each row; RMSNorm only scales. x (T, D) → (T, D). */
function norm(x, T, D, kind, eps, weight, bias) {
  const y = new Float32Array(T * D);
  for (let t = 0, at = 0; t < T; t++, at += D) {
    let mean = 0, square = 0;
    if (kind === "layer") { for (let d = 0; d < D; d++) mean += x[at + d]; mean /= D; }
    for (let d = 0; d < D; d++) square += (x[at + d] - mean) ** 2;
    const scale = 1 / Math.sqrt(square / D + eps);
    for (let d = 0; d < D; d++) y[at + d] = (x[at + d] - mean) * scale * weight.data[d] + (bias ? bias.data[d] : 0);
  }
  return y;
}

/** The error function, to about 1e-13: its series near 0, its continued fraction further out. */
function erf(x) {
  const z = Math.abs(x);
  if (z > 6) return Math.sign(x);
  let sum;
  if (z < 2.5) {
    let term = z;
    sum = z;
    for (let n = 1; Math.abs(term) > 1e-17; n++) { term *= -z * z / n; sum += term / (2 * n + 1); }
    return Math.sign(x) * sum * 2 / Math.sqrt(Math.PI);
  }
  sum = 0;
  for (let n = 60; n > 0; n--) sum = n / 2 / (z + sum);
  return Math.sign(x) * (1 - Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + sum));
}

const ACTIVATIONS = {
  silu: x => x / (1 + Math.exp(-x)),
  gelu: x => x * (1 + erf(x / Math.SQRT2)) / 2,
  gelu_tanh: x => x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))) / 2,
  relu: x => Math.max(x, 0),
  relu2: x => Math.max(x, 0) ** 2,
};

/** Turn queries or keys (T, heads · Dh) by their position, in place: coordinate i with coordinate i + Dh/2. */
function rotate(x, T, heads, Dh, theta) {
  const half = Dh / 2;
  for (let i = 0; i < half; i++) {
    const speed = Math.fround(1 / Math.fround(theta ** Math.fround(2 * i / Dh)));
    for (let t = 0; t < T; t++) {
      const angle = Math.fround(t * speed), cos = Math.cos(angle), sin = Math.sin(angle);
      for (let h = 0, at = t * heads * Dh + i; h < heads; h++, at += Dh) {
        const a = x[at], b = x[at + half];
        x[at] = a * cos - b * sin;
        x[at + half] = b * cos + a * sin;
      }
    }
  }
}

const magnitude = (x, from = 0, to = x.length) => { let s = 0; for (let i = from; i < to; i++) s += x[i] * x[i]; return Math.sqrt(s); };
const row = (x, width, i) => x.subarray(i * width, (i + 1) * width);
const dot = (a, b, at = 0, bt = 0, n = a.length) => { let s = 0; for (let i = 0; i < n; i++) s += a[at + i] * b[bt + i]; return s; };
const best = x => { let at = 0; for (let i = 1; i < x.length; i++) if (x[i] > x[at]) at = i; return at; };
/** The n greatest, the greatest first; of equals the one that comes first. */
function greatest(x, n) {
  const found = [];
  for (let i = 0; i < x.length; i++) {
    if (found.length === n && !(x[i] > x[found[n - 1]])) continue;
    let at = found.length;
    while (at && x[i] > x[found[at - 1]]) at--;
    found.splice(at, 0, i);
    if (found.length > n) found.pop();
  }
  return found;
}
/** log Σ exp. */
function logSum(x) {
  const most = x[best(x)];
  let s = 0;
  for (let i = 0; i < x.length; i++) s += Math.exp(x[i] - most);
  return most + Math.log(s);
}

const PLAIN = {mask: true, scale: true, order: true, heads: [], features: []};

class Model {
  /** config: lib.transformer.Config's fields; weights: {name: {data, shape}} by PyTorch's names. */
  constructor(config, weights) {
    Object.assign(this, {config, weights, runs: new Map()});
  }

  linear(x, T, name) { return linear(x, T, this.weights[name + ".weight"], this.weights[name + ".bias"]); }

  norm(x, T, name) {
    const c = this.config;
    return norm(x, T, c.d_model, c.norm, c.norm_eps, this.weights[name + ".weight"], this.weights[name + ".bias"]);
  }

  head(x, T) { return linear(x, T, this.weights["head.weight"] ?? this.weights["embedding.weight"]); }

  /** The stream before the first layer, (T, D). */
  embed(ids, order) {
    const {d_model: D, position} = this.config, table = this.weights["embedding.weight"].data;
    const x = new Float32Array(ids.length * D);
    ids.forEach((id, t) => {
      x.set(row(table, D, id), t * D);
      for (let d = 0; order && d < D; d++) {
        if (position === "learned") x[t * D + d] += this.weights["positions.weight"].data[t * D + d];
        if (position === "sinusoidal") {
          const angle = Math.fround(t / Math.fround(10000 ** Math.fround((d - d % 2) / D)));
          x[t * D + d] += d % 2 ? Math.cos(angle) : Math.sin(angle);
        }
      }
    });
    return x;
  }

  /** The whole pass over ids, every step kept; see inside.py. The newest few are remembered. */
  run(ids, changes = PLAIN) {
    const key = JSON.stringify([ids, changes]);
    if (!this.runs.has(key)) {
      if (this.runs.size >= 4) this.runs.delete(this.runs.keys().next().value);
      this.runs.set(key, this.forward(ids, changes));
    }
    return this.runs.get(key);
  }

  forward(ids, changes) {
    const {n_layer, d_model: D, d_ff: F, mlp, activation} = this.config, T = ids.length;
    let x = this.embed(ids, changes.order);
    const run = {ids, T, stream: [x], layers: []};
    for (let l = 0; l < n_layer; l++) {
      const at = `blocks.${l}.`;
      const norm1 = this.norm(x, T, at + "norm1"), part = this.attention(norm1, T, l, changes);
      const attention = this.linear(part.mixture, T, at + "attention.out");
      x = x.map((value, i) => value + attention[i]);
      run.stream.push(x);
      const norm2 = this.norm(x, T, at + "norm2"), up = this.linear(norm2, T, at + "mlp.up");
      const gate = mlp === "gated" ? this.linear(norm2, T, at + "mlp.gate") : up, f = ACTIVATIONS[activation];
      const features = gate === up ? up.map(f) : up.map((value, i) => value * f(gate[i]));
      for (const [layer, feature] of changes.features) {
        if (layer === l) for (let t = 0; t < T; t++) features[t * F + feature] = 0;
      }
      const written = this.linear(features, T, at + "mlp.down");
      x = x.map((value, i) => value + written[i]);
      run.stream.push(x);
      run.layers.push({norm1, ...part, attention, norm2, features, mlp: written});
    }
    run.logits = this.head(this.norm(x, T, "norm"), T);
    return run;
  }

  /** q (T, H · Dh), k and v (T, K · Dh), weights (H, T, T), mixture (T, H · Dh) of one layer. */
  attention(x, T, l, changes) {
    const {n_head: H, n_kv_head: K, head_dim: Dh, position, rope_theta, causal, sliding_window} = this.config;
    const [q, k, v] = ["q", "k", "v"].map(name => this.linear(x, T, `blocks.${l}.attention.${name}`));
    if (position === "rotary" && changes.order) { rotate(q, T, H, Dh, rope_theta); rotate(k, T, K, Dh, rope_theta); }
    const weights = new Float32Array(H * T * T), mixture = new Float32Array(T * H * Dh);
    const scale = changes.scale ? 1 / Math.sqrt(Dh) : 1, blind = causal && changes.mask;
    for (let h = 0; h < H; h++) {
      const silent = changes.heads.some(([layer, head]) => layer === l && head === h);
      const kv = Math.floor(h / (H / K)) * Dh;
      for (let i = 0; i < T; i++) {
        const w = row(weights, T, h * T + i), from = blind && sliding_window ? Math.max(0, i - sliding_window + 1) : 0;
        const to = blind ? i + 1 : T;
        let most = -Infinity, sum = 0;
        for (let j = from; j < to; j++) {
          w[j] = dot(q, k, i * H * Dh + h * Dh, j * K * Dh + kv, Dh) * scale;
          if (w[j] > most) most = w[j];
        }
        for (let j = from; j < to; j++) sum += w[j] = Math.exp(w[j] - most);
        const mixed = row(mixture, Dh, i * H + h);
        for (let j = from; j < to; j++) {
          w[j] /= sum;
          if (!silent) for (let d = 0, at = j * K * Dh + kv; d < Dh; d++) mixed[d] += w[j] * v[at + d];
        }
      }
    }
    return {q, k, v, weights, mixture};
  }

  /** What is shown of a pass to somebody who points at {layer, head, query, key}; the same as inside.py's `see`. */
  see(ids, changes, {layer: l, head: h, query: i, key: j}) {
    const {n_layer: L, n_head: H, n_kv_head: K, head_dim: Dh, d_model: D, vocab_size: V} = this.config;
    const run = this.run(ids, changes), T = run.T, layer = run.layers[l], kv = Math.floor(h / (H / K));
    const q = row(layer.q, Dh, i * H + h), key = t => row(layer.k, Dh, t * K + kv), embedding = this.weights["embedding.weight"].data;
    const own = row(embedding, D, ids[i]), scores = new Float32Array(T * T);
    for (let a = 0; a < T; a++) for (let b = 0; b < T; b++) scores[a * T + b] = dot(row(layer.q, Dh, a * H + h), key(b));
    const write = (layer, head) => {
      const out = this.weights[`blocks.${layer}.attention.out.weight`].data, mixed = row(run.layers[layer].mixture, Dh, i * H + head);
      return Float32Array.from({length: D}, (_, d) => dot(out, mixed, d * H * Dh + head * Dh, 0, Dh));
    };
    const rows = x => Float32Array.from({length: T}, (_, t) => magnitude(x, t * D, (t + 1) * D));
    if (!run.told) {  // what does not depend on where one points
      const surprise = Float32Array.from({length: T - 1}, (_, t) => { const x = row(run.logits, V, t); return logSum(x) - x[ids[t + 1]]; });
      run.told = {lengths: flat(run.stream.map(rows)), heard: flat(run.layers.map(each => rows(each.attention))),
                  thought: flat(run.layers.map(each => rows(each.mlp))), surprise};
    }
    const alike = new Float32Array(V), ownLength = magnitude(own);
    for (let id = 0; id < V; id++) alike[id] = dot(own, embedding, 0, id * D, D) / (ownLength * magnitude(embedding, id * D, id * D + D) || 1);
    return {
      ...run.told, lens: this.lens(run, i), stream: flat(run.stream.map(x => row(x, D, i))),
      writes: Float32Array.from({length: L * H}, (_, n) => magnitude(write(Math.floor(n / H), n % H))),
      embedding: own, position: row(run.stream[0], D, i).map((value, d) => value - own[d]), nearest: greatest(alike, 9),
      norm1: row(layer.norm1, D, i), norm2: row(layer.norm2, D, i), q, k: key(j), v: row(layer.v, Dh, j * K + kv), scores,
      weights: layer.weights, mixture: row(layer.mixture, Dh, i * H + h), written: write(l, h),
      attention: row(layer.attention, D, i), features: this.strongest(run, l, i), mlp: row(layer.mlp, D, i),
      logits: row(run.logits, V, i), last: row(run.logits, V, T - 1),
    };
  }

  /** What the stream would say if it were read after each layer, and where what comes next stands there. */
  lens(run, query) {
    const {d_model: D, vocab_size: V} = this.config, T = run.T, points = run.stream.filter((_, p) => p % 2 === 0);
    const all = T * V * D * points.length <= 8_000_000;
    if (all && run.lens) return run.lens;
    const rows = all ? Array.from({length: T}, (_, t) => t) : [query];
    const target = rows.map(t => t + 1 < T ? run.ids[t + 1] : best(row(run.logits, V, T - 1)));
    const found = {rows, target, top: [], chance: [], rank: []};
    for (const x of points) {
      const picked = all ? x : row(x, D, query), logits = this.head(this.norm(picked, rows.length, "norm"), rows.length);
      rows.forEach((_, r) => {
        const scores = row(logits, V, r), own = scores[target[r]], first = best(scores);
        let rank = 1;
        for (let v = 0; v < V; v++) if (scores[v] > own) rank++;
        found.top.push(first);
        found.chance.push(Math.exp(scores[first] - logSum(scores)));
        found.rank.push(rank);
      });
    }
    return all ? run.lens = found : found;
  }

  /** The features of a layer's MLP that write most at the query, and which tokens each then makes likelier. */
  strongest(run, l, i) {
    const {d_model: D, d_ff: F, vocab_size: V, norm: kind} = this.config, T = run.T, all = run.layers[l].features;
    const down = this.weights[`blocks.${l}.mlp.down.weight`].data, last = this.weights["norm.weight"].data;
    const strength = new Float32Array(F), lengths = this.downs ??= [];
    lengths[l] ??= Float32Array.from({length: F}, (_, f) => { let s = 0; for (let d = 0; d < D; d++) s += down[d * F + f] ** 2; return Math.sqrt(s); });
    for (let f = 0; f < F; f++) strength[f] = Math.abs(all[i * F + f]) * lengths[l][f];
    const index = greatest(strength, 12), act = index.map(f => all[i * F + f]), directions = new Float32Array(index.length * D);
    index.forEach((f, n) => {
      const way = row(directions, D, n).map((_, d) => down[d * F + f] * Math.sign(act[n]));
      const mean = kind === "layer" ? way.reduce((a, b) => a + b, 0) / D : 0;
      directions.set(way.map((value, d) => (value - mean) * last[d]), n * D);
    });
    const logits = this.head(directions, index.length);
    return {index, act, strength: index.map(f => strength[f]), promotes: index.map((_, n) => greatest(row(logits, V, n), 3)),
            over: index.map(f => Float32Array.from({length: T}, (_, t) => all[t * F + f]))};
  }
}

function flat(rows) {
  const width = rows[0].length, all = new Float32Array(rows.length * width);
  rows.forEach((each, n) => all.set(each, n * width));
  return all;
}

/** Each token's chance to be drawn, in lib.generation's order: temperature, then top-k, then top-p. 0: the likeliest. */
function chances(logits, {temperature, topK, topP}) {
  const V = logits.length, first = best(logits), p = new Float64Array(V);
  if (!(temperature > 0)) { p[first] = 1; return p; }
  for (let v = 0; v < V; v++) p[v] = Math.exp((logits[v] - logits[first]) / temperature);
  const order = Array.from(p.keys()).sort((a, b) => p[b] - p[a] || a - b);
  if (topK > 0 && topK < V) for (const v of order) if (p[v] < p[order[topK - 1]]) p[v] = 0;
  let sum = p.reduce((a, b) => a + b, 0), before = 0;
  if (topP < 1) for (const v of order) { if (before / sum >= topP && v !== first) p[v] = 0; else before += p[v]; }
  sum = p.reduce((a, b) => a + b, 0);
  return p.map(value => value / sum);
}

/** A number from 0 to 1 for a seed and a place: the same whenever it is asked for. */
function chance(seed, place) {
  let x = (seed * 0x9e3779b1 + place * 0x85ebca6b) >>> 0;
  for (const [shift, by] of [[16, 0x7feb352d], [15, 0x846ca68b], [16, 1]]) x = Math.imul(x ^ x >>> shift, by) >>> 0;
  return x / 2 ** 32;
}

/** The token at which the chances, the likeliest first, add up to u. */
function draw(p, u) {
  const order = Array.from(p.keys()).filter(v => p[v] > 0).sort((a, b) => p[b] - p[a] || a - b);
  for (const v of order) if ((u -= p[v]) < 0) return v;
  return order[order.length - 1];
}

// ---- The view --------------------------------------------------------------------------------------------------------

const about = JSON.parse(document.getElementById("about").textContent);
const tokenizer = new Tokenizer(about.tokenizer);

/** The weights that lie in the page, as lib/view/page.py packed them. */
function unpack(layout, base64) {
  const binary = atob(base64), bytes = new Uint8Array(binary.length), weights = {};
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  let at = 0;
  for (const [name, shape] of layout) {
    const size = shape.reduce((a, b) => a * b, 1);
    weights[name] = {data: new Float32Array(bytes.buffer, at, size), shape};
    at += 4 * size;
  }
  return weights;
}

const model = about.served ? null : new Model(about.config, unpack(about.layout, document.getElementById("weights").textContent));
