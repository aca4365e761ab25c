"use strict";
// A language model, computed and shown by one page. First part: the model. Second part: the view (from "The view" on).
// Axes, as everywhere in this course: T positions, D width, H heads, K key/value heads, Dh width of a head, F width of
// the MLP, V tokens. A matrix (rows, columns) is one Float32Array, row after row.

// ---- The tokenizer ---------------------------------------------------------------------------------------------------

const utf8 = new TextEncoder(), fromUtf8 = new TextDecoder("utf-8", {fatal: true, ignoreBOM: true});

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
    const parts = this.digits ? text.match(this.digits === "each" ? /\p{N}|\P{N}+/gu : /\p{N}+|\P{N}+/gu) ?? []
      : [text];
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
    return new TextDecoder("utf-8", {ignoreBOM: true}).decode(Uint8Array.from(bytes));
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

/** x Wᵀ + b: x (T, I), W (O, I), b (O,) or nothing → (T, O). Four rows by two at a time, so that each number that is
 *  read is used more than once: that is most of the speed. At the edges a row is done twice and written once. */
function linear(x, T, W, b) {
  const [O, I] = W.shape, w = W.data, y = new Float32Array(T * O);
  for (let t = 0; t < T; t += 4) {
    const rows = Math.min(4, T - t), at = n => (t + Math.min(n, rows - 1)) * I, x0 = at(0), x1 = at(1), x2 = at(2),
      x3 = at(3);
    for (let o = 0; o < O; o += 2) {
      const second = o + 1 < O ? o + 1 : o;
      let a0 = b ? b.data[o] : 0, a1 = a0, a2 = a0, a3 = a0, b0 = b ? b.data[second] : 0, b1 = b0, b2 = b0, b3 = b0;
      for (let i = 0, u = o * I, v = second * I; i < I; i++, u++, v++) {
        const wa = w[u], wb = w[v], p = x[x0 + i], q = x[x1 + i], r = x[x2 + i], s = x[x3 + i];
        a0 += wa * p; a1 += wa * q; a2 += wa * r; a3 += wa * s;
        b0 += wb * p; b1 += wb * q; b2 += wb * r; b3 += wb * s;
      }
      let to = t * O;
      y[to + o] = a0; y[to + second] = b0;
      if (rows > 1) { to += O; y[to + o] = a1; y[to + second] = b1; }
      if (rows > 2) { to += O; y[to + o] = a2; y[to + second] = b2; }
      if (rows > 3) { to += O; y[to + o] = a3; y[to + second] = b3; }
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

const magnitude = (x, from = 0, to = x.length) => Math.sqrt(dot(x, x, from, from, to - from));
const row = (x, width, i) => x.subarray(i * width, (i + 1) * width);
function dot(a, b, at = 0, bt = 0, n = a.length) {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += a[at + i] * b[bt + i];
  return sum;
}
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
  see(ids, changes, {layer: l, head: h, query: i, key: asked}) {
    const {n_layer: L, n_head: H, n_kv_head: K, head_dim: Dh, d_model: D, vocab_size: V} = this.config;
    const run = this.run(ids, changes), T = run.T, layer = run.layers[l], kv = Math.floor(h / (H / K));
    const j = asked >= 0 ? asked : best(row(layer.weights, T, h * T + i));  // −1: the one that is looked at most
    const q = row(layer.q, Dh, i * H + h), key = t => row(layer.k, Dh, t * K + kv),
      embedding = this.weights["embedding.weight"].data;
    const own = row(embedding, D, ids[i]), scores = new Float32Array(T * T);
    for (let n = 0; n < T * T; n++) scores[n] = dot(row(layer.q, Dh, Math.floor(n / T) * H + h), key(n % T));
    const write = (layer, head) => {
      const out = this.weights[`blocks.${layer}.attention.out.weight`].data,
        mixed = row(run.layers[layer].mixture, Dh, i * H + head);
      return Float32Array.from({length: D}, (_, d) => dot(out, mixed, d * H * Dh + head * Dh, 0, Dh));
    };
    const rows = x => Float32Array.from({length: T}, (_, t) => magnitude(x, t * D, (t + 1) * D));
    const quiet = (layer, head) => changes.heads.some(each => each[0] === layer && each[1] === head);
    if (!run.told) {  // what does not depend on where one points
      const nats = (x, id) => logSum(x) - x[id];
      const surprise = Float32Array.from({length: T - 1}, (_, t) => nats(row(run.logits, V, t), ids[t + 1]));
      const bridges = run.layers.map(({weights}, layer) => {  // a layer's heads together, without the silent
        const mean = new Float32Array(T * T);
        for (let n = 0; n < weights.length; n++) {
          if (!quiet(layer, Math.floor(n / (T * T)))) mean[n % (T * T)] += weights[n] / H;
        }
        return mean;
      });
      run.told = {lengths: flat(run.stream.map(rows)), heard: flat(run.layers.map(each => rows(each.attention))),
                  thought: flat(run.layers.map(each => rows(each.mlp))), surprise, bridges: flat(bridges)};
    }
    const ownLength = magnitude(own);
    const alike = Float32Array.from({length: V}, (_, id) =>  // cosines
      dot(own, embedding, 0, id * D, D) / (ownLength * magnitude(embedding, id * D, id * D + D) || 1));
    return {
      ...run.told, lens: this.lens(run, i), stream: flat(run.stream.map(x => row(x, D, i))),
      writes: Float32Array.from({length: L * H}, (_, n) => magnitude(write(Math.floor(n / H), n % H))),
      embedding: own, position: row(run.stream[0], D, i).map((value, d) => value - own[d]), nearest: greatest(alike, 9),
      key: j, norm1: row(layer.norm1, D, i), norm2: row(layer.norm2, D, i), q, k: key(j),
        v: row(layer.v, Dh, j * K + kv), scores,
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
      const picked = all ? x : row(x, D, query), logits = this.head(this.norm(picked, rows.length, "norm"),
        rows.length);
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
    lengths[l] ??= Float32Array.from({length: F}, (_, f) => {
      let square = 0;
      for (let d = 0; d < D; d++) square += down[d * F + f] ** 2;
      return Math.sqrt(square);
    });
    for (let f = 0; f < F; f++) strength[f] = Math.abs(all[i * F + f]) * lengths[l][f];
    const index = greatest(strength, 12), act = index.map(f => all[i * F + f]),
      directions = new Float32Array(index.length * D);
    index.forEach((f, n) => {
      const way = row(directions, D, n).map((_, d) => down[d * F + f] * Math.sign(act[n]));
      const mean = kind === "layer" ? way.reduce((a, b) => a + b, 0) / D : 0;
      directions.set(way.map((value, d) => (value - mean) * last[d]), n * D);
    });
    const logits = this.head(directions, index.length);
    return {index, act, strength: index.map(f => strength[f]),
      promotes: index.map((_, n) => greatest(row(logits, V, n), 3)),
            over: index.map(f => Float32Array.from({length: T}, (_, t) => all[t * F + f]))};
  }
}

function flat(rows) {
  const width = rows[0].length, all = new Float32Array(rows.length * width);
  rows.forEach((each, n) => all.set(each, n * width));
  return all;
}

/** Each token's chance to be drawn, in lib.generation's order: temperature, top-k, top-p. 0: the likeliest. */
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
const {config} = about, L = config.n_layer, H = config.n_head, V = config.vocab_size;
const tokenizer = new Tokenizer(about.tokenizer);
const LIMIT = Math.min(config.block_size, about.shown);  // pieces that are read at once, the last ones

/** The weights that lie in the page, as page.py packed them. */
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

const model = about.served ? null : new Model(config, unpack(about.layout,
  document.getElementById("weights").textContent));

/** What is shown of a pass: computed here, or by the server that sent the page. */
async function see(ids, changes, at) {
  if (model) return model.see(ids, changes, at);
  const answer = await fetch("see", {method: "POST", headers: {"Content-Type": "application/json"},
    body: JSON.stringify({ids, changes, at})});
  const told = await answer.json();
  if (told.error) throw new Error(told.error);
  return JSON.parse(JSON.stringify(told), (_, value) => value?.f32 === undefined ? value :
    unpack([["x", [value.n]]], value.f32).x.data);
}

// What the page is about just now. Everything that is shown follows from it.
const state = {
  text: about.text, follow: true, ids: [], unknown: [], dropped: 0, changes: structuredClone(PLAIN), pinned: null,
  at: {layer: Math.min(1, L - 1), head: 0, query: 0, key: 0}, stage: 2 + 2 * Math.min(1, L - 1), step: 4,
  dials: {temperature: 1, topK: 0, topP: 1, seed: 0}, now: null, before: null,
};
const STAGES = ["Pieces and ids", "Embedding",
  ...Array.from({length: L}, (_, l) => [`Layer ${l}: attention`, `Layer ${l}: MLP`]).flat(), "The stream, read early"];
const STEPS = ["norm", "q·k", "scale", "mask", "softmax", "mixture"];

const $ = id => document.getElementById(id);
/** An element; text goes in as text and is never read as markup. */
function h(tag, given = {}, ...children) {
  const [name, ...classes] = tag.split("."), made = document.createElement(name);
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(given)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "key") made.dataset.key = value;
    else if (/^aria|^(role|for|scope)$/.test(key)) made.setAttribute(key.replace("aria", "aria-"), value);
    else made[key] = value;
  }
  made.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
  return made;
}
const number = (x, digits = 3) => Math.abs(x) >= 1000 ? x.toFixed(0)
  : (Math.abs(x) < 5e-4 && x ? x.toExponential(1) : x.toFixed(digits)).replace("-", "−");
const percent = p => p >= 0.9995 ? "100 %" : p >= 0.0995 ? `${(100 * p).toFixed(0)} %` : p >= 0.0005
  ? `${(100 * p).toFixed(1)} %` : "0 %";
const named = id => `“${tokenizer.show(id)}”`;
const place = t => `${named(state.ids[t])} (${t})`;
const button = (text, onclick, given = {}) => h("button.plain.small", {type: "button", onclick, ...given}, text);

// Pictures: numbers become colours between paper (nothing) and a strong one; orange is below zero, blue above.
let ink = {};
function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = name === "dark" ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `Change to the ${name === "dark" ? "light" : "dark"} theme`);
  const style = getComputedStyle(document.documentElement);
  ink = Object.fromEntries(["card", "soft", "ink", "quiet", "line", "accent", "accent-soft", "on-accent", "warm",
    "river", "was"]
    .map(key => [key, style.getPropertyValue(`--${key}`).trim()]));
  for (const key of ["card", "accent", "warm", "soft", "was"]) {
    const hex = parseInt(ink[key].slice(1), 16);
    ink[key + "3"] = [hex >> 16, hex >> 8 & 255, hex & 255];
  }
}

/** A picture (rows, columns) of numbers, one pixel each, that CSS stretches. most: the number of full colour. */
function pixels(canvas, x, columns, most = 0, plain = ink.card3) {
  const rows = x.length / columns, context = canvas.getContext("2d"), image = new ImageData(columns, rows);
  if (!most) for (const value of x) if (Math.abs(value) > most && Math.abs(value) < Infinity) most = Math.abs(value);
  for (let n = 0; n < x.length; n++) {
    const hidden = x[n] === -Infinity, share = hidden ? 1 : Math.sqrt(Math.min(1, Math.abs(x[n]) / (most || 1)));
    const full = hidden ? ink.soft3 : x[n] < 0 ? ink.warm3 : ink.accent3;
    for (let c = 0; c < 3; c++) image.data[4 * n + c] = plain[c] + (full[c] - plain[c]) * share;
    image.data[4 * n + 3] = 255;
  }
  [canvas.width, canvas.height] = [columns, rows];
  context.putImageData(image, 0, 0);
  return canvas;
}

/** A vector as a row of cells with words; the numbers themselves open below it, and under the pointer. */
function strip(title, x, most = 0) {
  const least = x.indexOf(Math.min(...x)), peak = best(x),
    says = `${title}: ${x.length} numbers, from ${number(x[least])} (number ${least}) to ${number(x[peak])} (number ${peak}), length ${number(magnitude(x), 2)}`;
  const caption = h("figcaption", {}, says);
  const canvas = pixels(h("canvas.pixels.strip", {role: "img", ariaLabel: says}), x, x.length, most, ink.soft3);
  canvas.setAttribute("aria-label", says);
  canvas.addEventListener("pointermove", event => {
    const n = Math.min(x.length - 1, Math.max(0, Math.floor(event.offsetX / canvas.clientWidth * x.length)));
    caption.textContent = `${title}: number ${n} is ${number(x[n], 4)}`;
  });
  canvas.addEventListener("pointerleave", () => caption.textContent = says);
  return h("figure", {}, canvas, caption);
}

/** All numbers behind a picture, as a table that opens. columns: {name: vector}. */
function numbers(columns) {
  const names = Object.keys(columns), made = h("details.numbers", {key: "numbers"}, h("summary", {}, "All numbers"));
  made.addEventListener("toggle", () => {
    if (!made.open || made.querySelector("table")) return;
    const size = columns[names[0]].length;
    made.append(h("table", {}, h("tr", {}, h("th", {scope: "col"}, "number"),
      names.map(name => h("th.number", {scope: "col"}, name))),
      Array.from({length: size}, (_, n) => h("tr", {}, h("td", {}, n),
        names.map(name => h("td.number", {}, number(columns[name][n], 4)))))));
  });
  return made;
}

/** A bar with the share now and, thin below it, the share before. */
function level(share, was = null, extra = "") {
  const now = h("i" + extra), made = h("span.level", {ariahidden: "true"}, now);
  now.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  if (was !== null) {
    const old = h("i.was-bar");
    old.style.width = `${100 * Math.min(1, Math.max(0, was))}%`;
    made.append(old);
  }
  return made;
}

// ---- Changing things: each change is one function, and everything is shown anew --------------------------------------

let due = false, running = false, version = 0;
/** Show everything anew with the next frame. */
function update() {
  version++;
  if (due) return;
  due = true;
  requestAnimationFrame(async () => {
    if (running) { due = false; return setTimeout(update, 5); }
    due = false;
    running = true;
    try { await look(); $("verdict").classList.remove("off"); }
    catch (problem) { $("verdict").textContent = `This cannot be shown: ${problem.message}`;
      $("verdict").classList.add("off"); }
    running = false;
  });
}

const plain = changes => changes.mask && changes.scale && changes.order && !changes.heads.length
  && !changes.features.length;
const clamp = (at, T) => ({...at, query: Math.min(at.query, T - 1), key: Math.min(at.key, T - 1)});

/** What “before” is: the pinned state, or, where anything is switched off, the untouched model on the same text. */
function baseline() {
  if (state.pinned) return JSON.stringify(state.pinned) === JSON.stringify(snapshot()) ? null : state.pinned;
  return plain(state.changes) ? null : {ids: state.ids, changes: PLAIN, dials: state.dials};
}
const snapshot = () => structuredClone({ids: state.ids, changes: state.changes, dials: state.dials});

async function look() {
  const {ids, at} = state, was = baseline(), mine = version;
  $("pin").disabled = $("write").disabled = $("write-more").disabled = !ids.length;
  document.querySelectorAll("#rivers, #stage, #next").forEach(section => section.hidden = !ids.length);
  if (!ids.length) {
    $("verdict").textContent = state.unknown.length ? "Nothing is left to read: type signs that the model knows."
      : "Type a text: with nothing to read there is nothing to say.";
    return;
  }
  const now = await see(ids, state.changes, state.follow ? {...at, key: -1} : at);
  const before = was?.ids.length ? {...await see(was.ids, was.changes, clamp(at, was.ids.length)), dials: was.dials}
    : null;
  if (mine !== version) return;  // something has changed meanwhile, and will be shown instead
  at.key = now.key;
  Object.assign(state, {now, before});
  if (state.stage !== state.scrolled) showWhere();
  showChanges();
  showVerdict();
  showRivers();
  showStage();
  showNext();
  showCards();
}

function read(text, where = "end") {
  const {ids, unknown} = tokenizer.encode(text);
  const dropped = Math.max(0, ids.length - LIMIT), T = ids.length - dropped;
  Object.assign(state, {text, unknown, dropped, ids: ids.slice(dropped), follow: true});
  if (where === "end" || state.at.query >= T) state.at = {...state.at, query: Math.max(0, T - 1),
    key: Math.max(0, Math.min(state.at.key, T - 1))};
  const lines = [];
  if (unknown.length) lines.push(`The model has no piece for ${unknown.slice(0, 8).map(sign => `“${sign}”`).join(", ")}${unknown.length > 8 ? " …" : ""} and reads on without.`);
  if (dropped) lines.push(`It reads at most ${LIMIT} pieces at once: the first ${dropped} are left out.`);
  $("notice").textContent = lines.join(" ");
  update();
}

function write(text) { $("text").value = text; read(text); }
/** Put other ids in place of the text's, as text. */
function rewrite(ids, query) {
  const head = state.dropped ? tokenizer.decode(tokenizer.encode(state.text).ids.slice(0, state.dropped)) : "";
  $("text").value = head + tokenizer.decode(ids);
  state.at.query = query;
  read($("text").value, "there");
}
function point(at, stage = state.stage) {
  const T = state.ids.length, inside = n => Math.min(T - 1, Math.max(0, n));
  state.at = {...state.at, ...at};
  state.follow = at.key === undefined;
  Object.assign(state.at, {query: inside(Math.floor(state.at.query)), key: inside(Math.floor(state.at.key))});
  state.stage = Math.min(STAGES.length - 1, Math.max(0, stage));
  if (state.stage > 1 && state.stage < STAGES.length - 1) state.at.layer = (state.stage - 2) >> 1;
  update();
}
const silent = (kind, layer, n) => state.changes[kind].some(each => each[0] === layer && each[1] === n);
function silence(kind, layer, n, off = !silent(kind, layer, n)) {
  state.changes[kind] = state.changes[kind].filter(each => each[0] !== layer || each[1] !== n);
  if (off) state.changes[kind].push([layer, n]);
  update();
}
function restore() {
  state.changes = structuredClone(PLAIN);
  ["mask", "scale", "order"].forEach(name => $(name).checked = true);
  update();
}

async function writeOn(count) {
  for (let n = 0; n < count; n++) {
    const {last} = await see(state.ids, state.changes, {...state.at, query: state.ids.length - 1, key: 0});
    const id = draw(chances(last, state.dials), chance(state.dials.seed, state.dropped + state.ids.length));
    $("text").value = state.text + tokenizer.decode([id]);
    read($("text").value);
    if (n + 1 < count) await new Promise(requestAnimationFrame);
  }
}

// ---- Showing: what is off, the verdict, the rivers -------------------------------------------------------------------

function showChanges() {
  const {changes} = state, chips = [];
  for (const [layer, head] of changes.heads) chips.push([`layer ${layer} head ${head} is silent`,
    () => silence("heads", layer, head, false)]);
  for (const [layer, feature] of changes.features) chips.push([`layer ${layer} feature ${feature} is silent`,
    () => silence("features", layer, feature, false)]);
  fill($("changes"), chips.map(([text, undo], n) => button(`${text} ×`, undo,
    {key: `chip${n}`, ariaLabel: `${text}: switch it on again`})));
  $("reset").hidden = plain(changes);
  $("pin").setAttribute("aria-pressed", String(Boolean(state.pinned)));
  $("pin").textContent = state.pinned ? "Unpin “before”" : "Pin as “before”";
}

/** Put children in place of what is there; what had the focus keeps it, if it is there again. */
function fill(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const open = [...parent.querySelectorAll("details[open]")].map(each => each.dataset.key);
  parent.replaceChildren(...children.flat().filter(Boolean));
  for (const each of parent.querySelectorAll("details")) if (open.includes(each.dataset.key)) each.open = true;
  if (focused) parent.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({preventScroll: true});
}

const mean = x => x.length ? x.reduce((a, b) => a + b, 0) / x.length : NaN;
function showVerdict() {
  const {now, before} = state, p = chances(now.last, {temperature: 1, topK: 0, topP: 1}), first = best(p), words = [];
  words.push(`Next comes ${named(first)}, it says (${percent(p[first])}`);
  const surprise = mean(now.surprise);
  if (before) {
    const q = chances(before.last, {temperature: 1, topK: 0, topP: 1}), old = best(q);
    words.push(old === first ? `; before: ${percent(q[old])}).`
      : `); before it said ${named(old)} (${percent(q[old])}).`);
    if (surprise === surprise
      && before.surprise.length) words.push(` The text surprises it by ${number(surprise, 2)} nats a piece, before by ${number(mean(before.surprise), 2)}.`);
  } else {
    words.push(").");
    if (surprise === surprise) words.push(` The text itself surprises it by ${number(surprise, 2)} nats a piece (${number(Math.log(V), 2)} would be guessing).`);
  }
  const text = words.join("");
  if ($("verdict").textContent !== text) $("verdict").textContent = text;
}

/** Where everything in the rivers stands: x of the stream's 2L + 1 points, y of each piece. */
function geometry() {
  const T = state.ids.length, room = $("rivers-scroll").clientWidth, narrow = room < 480;
  const words = tokenizer.kind === "bytes", left = narrow ? 44 : 96, right = narrow ? 66 : 128;
  const each = Math.max(words ? 110 : narrow ? 54 : 84, (room - left - right - 4) / (L + (words ? 0.38 : 0.2)));
  const wide = words ? 0.38 * each : Math.max(14, Math.min(26, each * 0.2));
  const high = T <= 14 ? 30 : T <= 26 ? 24 : T <= 44 ? 19 : 15, top = 24;
  const x = [left + wide / 2];
  for (let l = 0; l < L; l++) x.push(left + wide / 2 + each * (l + 0.65), left + wide / 2 + each * (l + 1));
  return {T, wide, left, right, each, high, top, x, narrow, width: left + wide + each * L + right,
    height: top + high * T + 6, y: t => top + high * (t + 0.5)};
}

function canvasOf(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1, context = canvas.getContext("2d");
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

function showRivers() {
  const {now, before, ids, at} = state, g = geometry(), {T, x, y, high, wide} = g,
    c = canvasOf($("rivers-canvas"), g.width, g.height);
  const mono = `${Math.min(14, high - 4)}px ui-monospace, monospace`, most = Math.max(...now.lengths),
    stage = state.stage;
  const thick = (p, t) => Math.max(1.5, high * 0.55 * Math.sqrt(now.lengths[p * T + t] / most));
  // the step and the piece that are looked at
  const [from, to] = stage < 1 ? [0, g.left] : stage === 1 ? [g.left, g.left + wide + 2] : stage === STAGES.length - 1
    ? [x[2 * L] + wide / 2 + 2, g.width] :
    stage % 2 ? [x[2 * at.layer + 1], x[2 * at.layer + 2] + wide / 2 + 2]
      : [x[2 * at.layer] + wide / 2, x[2 * at.layer + 1]];
  c.fillStyle = ink.soft;
  c.fillRect(from, 0, to - from, g.height);
  c.fillRect(0, y(at.query) - high / 2, g.width, high);
  c.font = "12px system-ui, sans-serif";
  c.textBaseline = "middle";
  c.textAlign = "center";
  c.fillStyle = ink.quiet;
  for (let l = 0; l < L; l++) {
    if (g.each < 120) { c.fillText(`layer ${l}`, (x[2 * l] + x[2 * l + 2]) / 2, 11); continue; }
    c.fillText(`attention ${l}`, (x[2 * l] + x[2 * l + 1]) / 2 + 4, 11);
    c.fillText(`MLP ${l}`, (x[2 * l + 1] + x[2 * l + 2]) / 2 - 4, 11);
  }
  c.textAlign = "left";
  c.fillText(g.narrow ? "next" : "says next", x[2 * L] + wide / 2 + 8, 11);
  // the rivers, as wide as the stream is long
  for (let t = 0; t < T; t++) {
    c.beginPath();
    for (let p = 0; p <= 2 * L; p++) c.lineTo(x[p], y(t) - thick(p, t) / 2);
    for (let p = 2 * L; p >= 0; p--) c.lineTo(x[p], y(t) + thick(p, t) / 2);
    c.fillStyle = ink.river;
    c.fill();
  }
  // the bridges: who takes over from whom, and how much; the head that is looked at in colour, else all heads together
  for (let l = 0; l < L; l++) {
    const chosen = stage === 2 + 2 * l, gone = chosen && silent("heads", l, at.head);
    const w = chosen ? now.weights.subarray(at.head * T * T, (at.head + 1) * T * T)
      : now.bridges.subarray(l * T * T, (l + 1) * T * T);
    // by share: one stroke for many
    const a = x[2 * l] + wide / 2 + 1, b = x[2 * l + 1] - 2, middle = (a + b) / 2, paths = new Map();
    for (let t = 0; t < T; t++) {
      const own = t === at.query;
      for (let s = 0; s < T; s++) {
        const share = w[t * T + s], level = (own ? 100 : 0) + Math.ceil(share * 10);
        if (s === t || share < (own ? 0.02 : 0.12)) continue;
        if (!paths.has(level)) paths.set(level, new Path2D());
        paths.get(level).moveTo(a, y(s));
        paths.get(level).bezierCurveTo(middle, y(s), middle, y(t), b, y(t));
      }
    }
    c.setLineDash(gone ? [2, 4] : []);  // a silent head looks, and carries nothing
    for (const [level, path] of [...paths].sort((p, q) => p[0] - q[0])) {
      const own = level > 50, share = level % 100 / 10;
      c.globalAlpha = own ? Math.min(1, 0.3 + share) : 0.08 + share * 0.35;
      c.strokeStyle = chosen || own ? ink.accent : ink.quiet;
      c.lineWidth = gone ? 0.8 : Math.max(0.6, share * high * 0.45);
      c.stroke(path);
    }
  }
  c.globalAlpha = 1;
  c.setLineDash([]);
  // what the MLP adds, and what the stream would say
  const {lens} = now, thought = Math.max(...now.thought);
  c.font = mono;
  c.textAlign = "center";
  lens.rows.forEach((t, r) => {
    for (let l = 0; l <= L; l++) {
      const n = l * lens.rows.length + r, good = lens.rank[n] === 1, near = lens.rank[n] <= 5,
        text = tokenizer.show(lens.top[n]);
      c.fillStyle = good ? ink.accent : near ? ink["accent-soft"] : ink.card;
      c.strokeStyle = ink.line;
      c.beginPath();
      c.roundRect(x[2 * l] - wide / 2 + 1, y(t) - high / 2 + 1.5, wide, high - 3, 3);
      c.fill();
      c.lineWidth = 1;
      c.stroke();
      c.fillStyle = good ? ink["on-accent"] : ink.ink;
      c.fillText(cut(text, Math.max(1, Math.floor(wide / 8.6) - (wide > 30))), x[2 * l] + 1, y(t) + 0.5);
    }
  });
  for (let l = 0; l < L; l++) for (let t = 0; t < T; t++) {
    const size = Math.sqrt(now.thought[l * T + t] / thought) * high * 0.3;
    c.fillStyle = ink.warm;
    c.beginPath();
    c.arc((x[2 * l + 1] + x[2 * l + 2] - wide / 2) / 2, y(t), size, 0, 7);
    c.fill();
  }
  // pieces at the left, what each position says at the right
  for (let t = 0; t < T; t++) {
    c.fillStyle = ink.ink;
    c.textAlign = "right";
    c.font = t === at.query ? `bold ${mono}` : mono;
    c.fillText(cut(tokenizer.show(ids[t]), g.narrow ? 4 : 7), g.left - 4, y(t) + 0.5);
    if (!g.narrow) {
      c.fillStyle = ink.quiet;
      c.font = "11px system-ui, sans-serif";
      c.textAlign = "left";
      c.fillText(t, 4, y(t) + 0.5);
    }
  }
  c.textAlign = "left";
  lens.rows.forEach((t, r) => {
    const n = L * lens.rows.length + r, m = before && before.lens.rows.length === lens.rows.length ? before.lens.top[n]
      : lens.top[n];
    c.font = mono;
    c.fillStyle = m === lens.top[n] ? ink.ink : ink.was;
    const text = (m === lens.top[n] ? "" : `${cut(tokenizer.show(m), 3)} → `)
      + cut(tokenizer.show(lens.top[n]), g.narrow ? 3 : 6);
    c.fillText(text, x[2 * L] + wide / 2 + 8, y(t) + 0.5);
    if (m === lens.top[n] || !g.narrow) {
      c.fillStyle = ink.quiet;
      c.font = "11px system-ui, sans-serif";
      c.textAlign = "right";
      c.fillText(percent(lens.chance[n]), g.width - 4, y(t) + 0.5);
      c.textAlign = "left";
    }
  });
  const q = at.query, last = L * lens.rows.length + lens.rows.indexOf(q), heard = l => now.heard[l * T + q],
    mlp = l => now.thought[l * T + q];
  $("rivers-says").textContent = `${T} ${T === 1 ? "piece, a river" : "pieces, a river each"}. At ${place(q)} ` +
    (stage > 1 && stage < STAGES.length - 1
      ? `layer ${at.layer}'s attention adds a vector of length ${number(heard(at.layer), 1)}, its MLP one of ${number(mlp(at.layer), 1)}; ` : "") +
    `the stream grows from ${number(now.lengths[q], 1)} to ${number(now.lengths[2 * L * T + q], 1)} and says ${named(lens.top[last])} (${percent(lens.chance[last])})` +
    (q + 1 < T ? `; what comes next is ${named(ids[q + 1])}.` : ".");
}
const cut = (text, n) => [...text].length > n ? [...text].slice(0, n).join("") + "…" : text;

/** Scroll the rivers, where they are wider than their room, so that the step that is looked at can be seen. */
function showWhere() {
  const {x} = geometry(), box = $("rivers-scroll"), at = state.stage < 2 ? 0 : state.stage === STAGES.length - 1
    ? x[2 * L] : x[state.stage - 2];
  const seen = at - box.scrollLeft;
  if (seen < 100 || seen > box.clientWidth - 160) box.scrollLeft = at - box.clientWidth / 2;
  state.scrolled = state.stage;
}

/** A click into the rivers: which piece, and which step. */
function pointed(event) {
  const g = geometry(), box = $("rivers-canvas").getBoundingClientRect(), px = event.clientX - box.left;
  const query = Math.floor((event.clientY - box.top - g.top) / g.high);
  let stage = px < g.left ? 0 : px < g.x[0] + g.wide / 2 ? 1 : px > g.x[2 * L] + g.wide / 2 + 2 ? STAGES.length - 1 : 2;
  if (stage === 2) while (stage < 2 * L + 1 && px > g.x[stage - 1] + (stage % 2 ? g.wide / 2 + 2 : 0)) stage++;
  point({query: query < 0 ? state.at.query : query}, stage);
}

// ---- One step, looked at closely -------------------------------------------------------------------------------------

function showStage() {
  const {ids, at, stage} = state;
  $("where").selectedIndex = stage;
  $("back").disabled = !stage;
  $("on").disabled = stage === STAGES.length - 1;
  Object.assign($("query"), {max: ids.length - 1, value: at.query});
  $("query-is").textContent = named(ids[at.query]);
  const kind = stage === 0 ? showPieces : stage === 1 ? showEmbedding : stage === STAGES.length - 1 ? showStream
    : stage % 2 ? showMLP : showAttention;
  fill($("close"), kind());
}

function showPieces() {
  const {ids, at, now} = state, q = at.query, id = ids[q], bytes = Array.from(tokenizer.bytes(id));
  const swap = to => { const other = [...ids]; [other[q], other[to]] = [other[to], other[q]]; rewrite(other, to); };
  return [
    h("p", {},
      `The text is cut into ${ids.length} pieces. The model has ${V.toLocaleString("en")} of them and knows each by its number only.`),
    h("div.pieces", {role: "group", ariaLabel: "Pieces"}, ids.map((each, t) =>
      h("button.piece", {type: "button", key: `piece${t}`, ariapressed: String(t === q),
      onclick: () => point({query: t})}, tokenizer.show(each)))),
    h("p.says", {},
      `Piece ${q} is ${named(id)}, number ${id}; as bytes ${bytes.map(b => b.toString(16).padStart(2, "0")).join(" ")}.`),
    h("div.row", {}, button("← earlier", () => swap(q - 1), {disabled: !q, key: "earlier"}),
      button("later →", () => swap(q + 1), {disabled: q + 1 >= ids.length, key: "later"}),
      button("take it out", () => rewrite(ids.filter((_, t) => t !== q), Math.max(0, q - 1)),
        {disabled: ids.length < 2, key: "out"})),
    h("h3", {}, "Put another in its place"),
    h("p", {}, "These have the rows of the embedding that are most like its own:"),
    h("div.pieces", {}, now.nearest.filter(other => other !== id).slice(0,
      8).map(other => h("button.piece", {type: "button", key: `put${other}`,
      ariaLabel: `Put ${tokenizer.show(other)} in its place`,
      onclick: () => rewrite(ids.map((each, t) => t === q ? other : each), q)}, tokenizer.show(other)))),
  ];
}

function showEmbedding() {
  const {now, at, ids} = state, kind = config.position, added = (kind === "learned" || kind === "sinusoidal")
    && state.changes.order;
  return [
    h("p.says", {},
      `${named(ids[at.query])} is row ${ids[at.query]} of the embedding, a table of ${V.toLocaleString("en")} rows of ${config.d_model} numbers that training has found. Looking the row up is all that happens.`),
    strip("Its row", now.embedding),
    added && strip(`Position ${at.query}, ${kind === "learned" ? "learned" : "sines and cosines"}`, now.position),
    h("p.says", {}, added ? "The two are added; this is where the river begins:" : kind === "rotary"
      ? "Nothing is added for the position: later, each head turns its queries and keys by it. The river begins with the row:" : "Nothing says where the piece stands. The river begins with the row:"),
    strip("The stream at its start", now.stream.subarray(0, config.d_model)),
    numbers({row: now.embedding, position: now.position, sum: now.stream.subarray(0, config.d_model)}),
  ];
}

function showAttention() {
  const {now, before, at, ids, step, changes} = state, T = ids.length, {layer, head, query: i, key: j} = at,
    Dh = config.head_dim;
  const scaled = value => changes.scale ? value / Math.sqrt(Dh) : value, root = Math.sqrt(Dh).toFixed(2);
  const w = seen => { const n = Math.sqrt(seen.scores.length);
    return seen.weights.subarray(head * n * n, (head + 1) * n * n); };
  const sees = (a, b) => !config.causal || !changes.mask || b <= a
    && (!config.sliding_window || b > a - config.sliding_window);
  const pair = `${place(i)} and ${place(j)}`, raw = now.scores[i * T + j], share = w(now)[i * T + j],
    off = silent("heads", layer, head);
  const matrix = seen => {
    const n = Math.sqrt(seen.scores.length);
    return step < 2 ? seen.scores : step === 2 ? seen.scores.map(scaled) : step === 3
      ? seen.scores.map((value, at) => sees(Math.floor(at / n), at % n) ? scaled(value) : -Infinity) : w(seen);
  };
  const body = [];
  body.push(h("div.heads", {role: "group", ariaLabel: `Heads of layer ${layer}`},
    Array.from({length: H}, (_, n) => h("div.head", {},
    h("button.look.plain", {type: "button", key: `head${n}`, ariapressed: String(n === head),
      ariaLabel: `Head ${n}${n === head ? ", looked at" : ""}`, onclick: () => point({head: n})},
      pixels(h("canvas.pixels"), now.weights.subarray(n * T * T, (n + 1) * T * T), T, 1)),
    h("label", {}, h("input", {type: "checkbox", checked: !silent("heads", layer, n), key: `on${n}`,
      ariaLabel: `Head ${n} speaks`, onchange: () => silence("heads", layer, n)}), ` head ${n}`)))));
  body.push(h("div.steps", {role: "group", ariaLabel: "Steps of attention"},
    STEPS.map((name, n) => h("button.plain", {type: "button", key: `step${n}`, ariapressed: String(n === step),
    onclick: () => { state.step = n; update(); }}, name))));
  body.push(h("p.says", {}, `Query ${place(i)} looks at key `,
    h("input", {type: "number", min: 0, max: T - 1, value: j, key: "key", ariaLabel: "the key's place",
    oninput: event => event.target.value !== "" && point({key: Number(event.target.value)})}), ` ${named(ids[j])}`));
  const D = config.d_model, from = now.stream.subarray(2 * layer * D, (2 * layer + 1) * D);
  if (step === 0) {
    const rms = Math.sqrt(from.reduce((a, b) => a + b * b, 0) / D);
    body.push(h("p.sum", {},
      config.norm === "rms"
      ? `RMSNorm divides the stream by its root mean square, ${number(rms)}, and stretches each number.`
      : `LayerNorm takes off the mean, ${number(mean(from))}, divides by the deviation, and stretches and shifts each number.`),
      strip(`The stream at ${place(i)}`, from), strip("What attention reads", now.norm1),
        numbers({stream: from, normed: now.norm1}));
    return body;
  }
  const products = now.q.map((value, d) => value * now.k[d]), row_ = w(now).subarray(i * T, (i + 1) * T),
    exponent = t => sees(i, t) ? Math.exp(scaled(now.scores[i * T + t])) : 0;
  const arithmetic = [
    [h("p.sum", {}, `q·k: ${Dh} products, added up: `, h("b", {}, number(raw)),
      `. The largest: number ${best(products.map(Math.abs))}, ${number(now.q[best(products.map(Math.abs))])} × ${number(now.k[best(products.map(Math.abs))])}.`),
      strip(`q, what ${place(i)} asks for`, now.q), strip(`k, what ${place(j)} offers`, now.k),
        strip("The products", products), numbers({q: now.q, k: now.k, product: products})],
    [h("p.sum", {}, changes.scale ? `${number(raw)} ÷ √${Dh} = ${number(raw)} ÷ ${root} = `
      : "The scale is off, so it stays ", h("b", {}, number(scaled(raw))),
      changes.scale ? ". A sum of many products is large; without this the softmax would see only the largest." : ".")],
    [h("p.sum", {},
      sees(i, j)
      ? `${place(j)} ${j === i ? "is the piece itself" : j < i ? "comes earlier" : "comes later, but the mask is off"}: it may be looked at, the score stays ` : `${place(j)} ${j > i ? "comes later" : "is too far back"} and may not be looked at: the score becomes `, h("b", {}, sees(i, j) ? number(scaled(raw)) : "−∞"), ".")],
    [h("p.sum", {},
      sees(i, j)
      ? `e^${number(scaled(raw))} = ${number(exponent(j))}; all of the row together ${number(ids.reduce((sum, _, t) => sum + exponent(t), 0))}; the share is ` : "e^−∞ = 0: the share is ", h("b", {}, percent(share)), `. All shares of ${place(i)} add up to 100 %.`),
      strip(`How ${place(i)} shares its attention`, row_, 1), numbers({score: now.scores.subarray(i * T,
        (i + 1) * T).map(scaled), share: row_})],
    [h("p.sum", {}, off ? h("span.off", {}, "This head is silent: whatever it looks at, nothing is mixed.")
      : `${percent(share)} of the value of ${place(j)} goes in, and so on for all; through the output matrix the mixture adds a vector of length ${number(magnitude(now.written), 2)} to the river.`),
      strip(`v, what ${place(j)} gives`, now.v), strip("The mixture of all values", now.mixture),
        strip("What this head adds to the stream", now.written), numbers({v: now.v, mixture: now.mixture})],
  ][step - 1];
  const picture = (title, x, n, most) => {
    const spot = h("i"), line = h("i.line"), frame = h("div.map",
      {tabIndex: 0, key: `map${title}`, role: "group", ariaLabel: `${title}: arrow keys choose the query and the key`},
      pixels(h("canvas.pixels", {role: "img", ariaLabel: `${title} of head ${head} in layer ${layer}`}), x, n, most),
        line, spot);
    Object.assign(spot.style, {left: `${100 * Math.min(j, n - 1) / n}%`, top: `${100 * Math.min(i, n - 1) / n}%`,
      width: `${100 / n}%`, height: `${100 / n}%`});
    Object.assign(line.style, {left: 0, right: 0, top: `${100 * Math.min(i, n - 1) / n}%`, height: `${100 / n}%`});
    const pick = event => {
      const box = frame.getBoundingClientRect();
      point({query: Math.floor((event.clientY - box.top) / box.height * n),
        key: Math.floor((event.clientX - box.left) / box.width * n)});
    };
    frame.addEventListener("pointerdown", pick);
    frame.addEventListener("pointermove", event => event.buttons && pick(event));
    frame.addEventListener("keydown", event => {
      const by = {ArrowUp: {query: i - 1}, ArrowDown: {query: i + 1}, ArrowLeft: {key: j - 1},
        ArrowRight: {key: j + 1}}[event.key];
      if (by) { event.preventDefault(); point(by); }
    });
    return h("figure", {}, h("figcaption", {}, title), frame);
  };
  const peak = x => { let most = 0; for (const value of x) if (value !== -Infinity
    && Math.abs(value) > most) most = Math.abs(value); return most; };
  const x = matrix(now), old = before && matrix(before), most = step > 3 ? 1 : Math.max(peak(x), old ? peak(old) : 0),
    title = ["", "q·k", "scaled", "masked", "shares", "shares"][step];
  const same = old && old.length === x.length && old.every((value, n) => value === x[n]);
  body.push(h("div.maps", {}, old && !same && picture(`${title} before`, old, Math.sqrt(old.length), most),
    picture(old && !same ? `${title} now` : title, x, T, most),
    old && old.length === x.length && (same ? h("p.was", {}, "Before and now are the same here.")
      : picture("now − before", x.map((value, n) => value === old[n] ? 0 : value - old[n]), T, step > 3 ? 1 : 0))));
  const order = Array.from(row_.keys()).sort((a, b) => row_[b] - row_[a]),
    looks = order.slice(0, 3).filter(t => row_[t] > 0.01).map(t => `${place(t)} ${percent(row_[t])}`);
  body.push(h("p.says", {},
    `Rows ask, columns are asked; ${step > 3 ? "blue is the share" : "blue is above zero, orange below"}. Layer ${layer}, head ${head}: ${place(i)} looks at ${looks.join(", ")}.`),
    off && step < 5 && h("p.off", {}, "This head is silent: it looks, but nothing of what it sees is passed on."),
      ...arithmetic);
  return body;
}

function showMLP() {
  const {now, before, at, ids} = state, {layer, query: q} = at, {index, act, over, promotes} = now.features,
    T = ids.length;
  const most = Math.max(...act.map(Math.abs), 1e-9), n = promotes.length / index.length,
    mine = state.changes.features.filter(each => each[0] === layer && !Array.from(index).includes(each[1]));
  const promoted = r => (Array.isArray(promotes[r]) ? promotes[r]
    : Array.from(promotes.slice(r * n, (r + 1) * n))).map(id => tokenizer.show(id));
  return [
    h("p.says", {},
      `Attention has spoken; now each river thinks for itself. The MLP of layer ${layer} has ${config.d_ff} features. At ${place(q)} it adds a vector of length ${number(magnitude(now.mlp), 2)}; ${index.length} features write most of it.`),
    h("div.scroll", {tabIndex: 0, role: "region", ariaLabel: "The strongest features"},
      h("table", {}, h("tr", {}, ["on", "feature", "fires", "over the text",
      "makes likelier"].map(name => h("th", {scope: "col"}, name))),
      Array.from(index, (f, r) => h("tr", {},
        h("td", {}, h("input", {type: "checkbox", checked: !silent("features", layer, f), key: `feature${f}`,
          ariaLabel: `Feature ${f} speaks`, onchange: () => silence("features", layer, f)})),
        h("td", {}, f), h("td", {}, level(Math.abs(act[r]) / most, null, act[r] < 0 ? ".low" : ""), number(act[r], 2)),
        h("td", {}, pixels(h("canvas.pixels.strip", {role: "img",
          ariaLabel: `Feature ${f} over the ${T} pieces; most at ${place(best(rowOf(over, r, T)))}`}),
          rowOf(over, r, T), T, 0, ink.soft3)),
        h("td", {}, promoted(r).map(text => [h("code", {}, text), " "])))))),
    mine.length ? h("p", {}, `Silent besides: ${mine.map(each => each[1]).join(", ")}.`) : null,
    h("p", {}, "A box unticked keeps that feature at 0, everywhere in the text. Orange is below zero."),
    before && h("p.was", {}, `Before, the MLP added a vector of length ${number(magnitude(before.mlp), 2)} here.`),
    strip("What the MLP reads, normed", now.norm2), strip("What it adds to the stream", now.mlp),
  ];
}
const rowOf = (x, r, T) => Array.isArray(x) ? x[r] : x.subarray(r * T, (r + 1) * T);

function showStream() {
  const {now, before, at, ids} = state, {lens} = now, T = ids.length, q = at.query, R = lens.rows.length,
    r = lens.rows.indexOf(q), most = Math.max(...now.lengths);
  const old = before?.lens.rows.includes(q) ? before : null, was = p => old
    && old.lens.top[p * old.lens.rows.length + old.lens.rows.indexOf(q)];
  return [
    h("p.says", {},
      q + 1 < T ? `After ${place(q)} really comes ${named(ids[q + 1])}. Read early, the stream would have said:`
      : `${place(q)} is the last piece; in the end the model says ${named(lens.target[r])}. Read early, the stream would have said:`),
    h("table", {}, h("tr", {}, ["read after", "its length", "", "would say", "chance",
      `place of ${named(lens.target[r])}`].map((name, n) => h(n === 2 || n > 3 ? "th.number" : "th", {scope: "col"},
      name))),
      Array.from({length: L + 1}, (_, p) => { const n = p * R + r, size = now.lengths[2 * p * T + q];
        return h("tr", {}, h("td", {}, p ? `layer ${p - 1}` : "embedding"),
        h("td", {}, level(size / most, old ? old.lengths[2 * p * T + q] / most : null)),
        h("td.number", {}, number(size, 1)),
        h("td", {}, old && was(p) !== lens.top[n] && [h("code.was", {}, tokenizer.show(was(p))), " → "],
          h("code", {}, tokenizer.show(lens.top[n]))), h("td.number", {}, percent(lens.chance[n])),
          h("td.number", {}, lens.rank[n])); })),
    h("p", {},
      "To read early is to take the stream as it is, through the last norm and the output head (the logit lens)."),
    strip("The stream at its end", now.stream.subarray(2 * L * config.d_model)),
  ];
}

// ---- What comes next -------------------------------------------------------------------------------------------------

function showNext() {
  const {now, before, dials, at, ids} = state, T = ids.length, p = chances(now.logits, dials),
    plainly = chances(now.logits, {temperature: 1, topK: 0, topP: 1});
  const old = before && chances(before.logits, before.dials), u = chance(dials.seed, state.dropped + at.query + 1),
    drawn = draw(p, u);
  const first = greatest(plainly, 9), shown = [...new Set([...first, ...(old ? greatest(old, 3) : []), drawn])],
    most = Math.max(...shown.map(v => Math.max(p[v], old ? old[v] : 0)));
  const left = p.reduce((count, value) => count + (value > 0), 0);
  fill($("bars"), h("table", {}, h("tr", {}, ["piece", "score", "", "chance",
    ...(old ? ["before"] : [])].map((name, n) => h(n === 1 || n > 2 ? "th.number" : "th", {scope: "col"}, name))),
    shown.map(v => h(v === drawn ? "tr.here" : "tr", {}, h("td", {}, h("code", {}, tokenizer.show(v))),
      h("td.number", {}, number(now.logits[v], 2)), h("td", {}, level(p[v] / most, old ? old[v] / most : null)),
      h("td.number", {}, p[v] ? percent(p[v]) : "cut"), old && h("td.number.was", {}, percent(old[v]))))),
        needle(p, u, drawn));
  $("next-says").textContent = `After ${place(at.query)}: of ${V.toLocaleString("en")} pieces ${left === V ? "all" : left} may be drawn. The seed gives ${number(u, 3)}, and so ${named(drawn)} (${percent(p[drawn])})` +
    (at.query + 1 < T ? `; in the text comes ${named(ids[at.query + 1])} (${percent(p[ids[at.query + 1]])}).` : ".");
  $("temperature-is").textContent = dials.temperature ? dials.temperature.toFixed(2) : "0: the likeliest";
  $("topk-is").textContent = dials.topK || "off";
  $("topp-is").textContent = dials.topP < 1 ? dials.topP.toFixed(2) : "off";
}

/** All chances on one line, the likeliest first, and the number that was drawn as a needle in it. */
function needle(p, u, drawn) {
  const made = h("div.needle",
    {role: "img",
    ariaLabel: `The chances side by side; the needle at ${number(u, 3)} falls on ${tokenizer.show(drawn)}`}),
    pin = h("i");
  for (const v of greatest(p, 12)) {
    if (p[v] < 0.004) break;
    const part = h(v === drawn ? "span.drawn" : "span", {}, p[v] > 0.035 ? tokenizer.show(v) : "");
    part.style.width = `${100 * p[v]}%`;
    made.append(part);
  }
  pin.style.left = `${100 * u}%`;
  made.append(pin);
  return made;
}

// ---- Questions that score themselves (questions.json says what is asked) ---------------------------------------------

const done = new Set();
const lossOf = async (ids, changes, from = 0) => mean((await see(ids, changes,
  {layer: 0, head: 0, query: 0, key: 0})).surprise.subarray(from));
const everyHead = Array.from({length: L * H}, (_, n) => [Math.floor(n / H), n % H]);

/** The fewest heads (found one at a time) after whose silence loss(heads) is at least as much as wanted. */
async function fewest(loss, wanted) {
  const heads = [];
  while (heads.length < Math.min(L * H, 8)) {
    let most = -Infinity, found = null;
    for (const head of everyHead) {
      if (heads.some(each => each[0] === head[0] && each[1] === head[1])) continue;
      const here = await loss([...heads, head]);
      if (here > most) [most, found] = [here, head];
    }
    heads.push(found);
    if (most >= wanted) return heads;
  }
  return null;
}

const QUESTIONS = {
  /** Turn the temperature until the likeliest piece has a given chance. */
  async sure({from, to}) {
    const p = chances(state.now.last, {...state.dials, topK: 0, topP: 1}), most = p[best(p)];
    return {good: most >= from && most <= to,
      says: `The likeliest now has ${percent(most)}; wanted are ${percent(from)} to ${percent(to)}.`};
  },
  /** The head that is looked at: how much of its attention goes one piece back, beside the best head's. */
  async back() {
    if (state.ids.length < 8) return {says: "Type at least eight pieces first."};
    const {ids, at} = state, T = ids.length, shares = [];
    for (let l = 0; l < L; l++) {
      const {weights} = await see(ids, PLAIN, {...at, layer: l});
      for (let n = 0; n < H; n++) shares.push(mean(Array.from({length: T - 1},
        (_, t) => weights[(n * T + t + 1) * T + t])));
    }
    const mine = shares[at.layer * H + at.head], most = shares[best(shares)], good = mine >= 0.9 * most;
    return {good,
      says: `Layer ${at.layer} head ${at.head} gives ${percent(mine)} of its attention to the piece just before; `
      + (good ? `${mine === most ? "no other gives more" : "hardly any gives more"}${most < 0.3 ? ", though in this model and text none does so strongly" : ""}.` : "another head gives more. Look at the shares of each: a bright line just beside the diagonal.")};
  },
  /** One piece changed, as far from the end as possible, that changes the likeliest next piece. */
  async far() {
    const was = state.pinned;
    if (!was) return {says: "Pin the text as it is first, then change one piece of it."};
    if (was.ids.length !== state.ids.length) return {says: "Now the text is longer or shorter. Change one piece for another."};
    const other = state.ids.map((id, t) => id === was.ids[t] ? -1 : t).filter(t => t >= 0);
    if (other.length !== 1) return {says: other.length ? `${other.length} pieces differ; one only.`
      : "Nothing differs yet."};
    const then = await see(was.ids, PLAIN, {...state.at, query: 0, key: 0}),
      now = await see(state.ids, PLAIN, {...state.at, query: 0, key: 0});
    const far = state.ids.length - 1 - other[0], good = best(then.last) !== best(now.last);
    return {good: good && far > 1,
      says: good
      ? `The next piece was ${named(best(then.last))} and is ${named(best(now.last))}, by a piece ${far} back from the end.${far > 1 ? " Further?" : " Go further back."}` : `Still ${named(best(now.last))}. Try another piece, or another in its place.`};
  },
  /** Silence the one feature that takes most from the likeliest next piece. */
  async feature() {
    const {features} = state.changes;
    if (features.length !== 1) return {says: features.length ? "One feature only: switch the others on again."
      : "Go to an MLP at the last piece and untick one feature."};
    const query = state.ids.length - 1, plainly = await see(state.ids, PLAIN, {...state.at, query}),
      first = best(plainly.last), logP = seen => seen.last[first] - logSum(seen.last);
    const fall = async each => logP(plainly) - logP(await see(state.ids, {...PLAIN, features: [each]},
      {...state.at, query}));
    const mine = await fall(features[0]);
    let most = [-Infinity];
    for (let l = 0; l < L; l++) {
      const {features: strong} = await see(state.ids, PLAIN, {...state.at, layer: l, query});
      for (const f of Array.from(strong.index).slice(0, 8)) { const here = await fall([l, f]);
        if (here > most[0]) most = [here, l, f]; }
    }
    const good = mine >= 0.7 * most[0];
    return {good, says: `Without it ${named(first)} is ${number(Math.exp(mine), 2)} times less likely. `
      + (good ? "None of the strongest does much more."
      : `There is one whose loss costs a factor of ${number(Math.exp(most[0]), 2)}, in layer ${most[1]}.`)};
  },
  /** Silence few heads, so that the text surprises the model half as much again as it would with all heads silent. */
  async forget() {
    if (state.ids.length < 12) return {says: "Type at least a dozen pieces first."};
    const loss = heads => lossOf(state.ids, {...PLAIN, heads}), {heads} = state.changes;
    const whole = await loss([]), none = await loss(everyHead), now = await loss(heads),
      share = (now - whole) / (none - whole);
    if (none - whole < 0.05) return {says: "On this text its heads help it little: with all of them silent it is hardly more surprised. Take another text."};
    if (share < 0.5) return {says: `${heads.length ? `${heads.length} silent: ` : ""}${percent(Math.max(0, share))} of what its attention knows is gone (surprise ${number(whole, 2)}, now ${number(now, 2)}, without any head ${number(none, 2)}). Get to half.`};
    const few = await fewest(loss, whole + (none - whole) / 2), good = !few || heads.length <= few.length;
    return {good, says: `${percent(share)} is gone with ${heads.length} of ${L * H} heads silent. `
      + (good ? "It takes no fewer, as far as we can find." : `${few.length} would do.`)};
  },
  /** A text that comes twice: silence heads until the second time surprises as much as the first. */
  async copy() {
    const {ids} = state, n = Math.floor(ids.length / 2);
    if (n < 5 || !ids.slice(0, n).every((id, t) => id === ids[t
      + n])) return {says: "Lay out a text that comes twice, by the button."};
    const loss = heads => lossOf(ids, {...PLAIN, heads}, n), {heads} = state.changes;
    const first = mean((await see(ids, PLAIN, {...state.at, query: 0, key: 0})).surprise.subarray(0, n - 1)),
      whole = await loss([]), now = await loss(heads), gain = first - whole;
    if (gain < 0.5) return {says: `This model hardly copies: the first time each piece costs it ${number(first, 2)} nats, the second ${number(whole, 2)}. Nothing here to break; larger or longer-trained models do copy.`};
    if (first - now > gain / 2) return {says: `The first time costs ${number(first, 2)} nats a piece, the second ${number(now, 2)}. Silence heads until more than half of that difference is gone.`};
    const few = await fewest(loss, first - gain / 2), good = !few || heads.length <= few.length;
    return {good,
      says: `Broken with ${heads.length}: the second time now costs ${number(now, 2)} nats, the first ${number(first, 2)}. ` + (good ? "It takes no fewer, as far as we can find." : `${few.length} would do.`)};
  },
};

/** What a question's button lays out before one begins. */
const PREPARE = {
  pin() { if (!state.pinned) $("pin").click(); },
  last() { point({query: state.ids.length - 1}, 3 + 2 * (L - 1)); },
  heads() { point({query: state.ids.length - 1}, 2); state.step = 4; },
  dials() { point({query: state.ids.length - 1}); $("temperature").focus(); },
  twice() {
    const whole = Array.from({length: V}, (_, id) => id).filter(id => id < tokenizer.pieces.length
      && /^\p{L}+$/u.test(tokenizer.show(id)));
    const n = Math.min(12, Math.floor(LIMIT / 2)), once = Array.from({length: n},
      (_, t) => whole[Math.floor(chance(7, t) * whole.length)]);
    write(tokenizer.decode([...once, ...once]));
    point({query: 2 * n - 1}, 2);
  },
};

function makeCards() {
  $("cards").append(...about.questions.map(({id, title, ask, hint, kind, prepare, label, ...given}) => {
    const score = h("p.score", {role: "status"}), card = h("details", {key: id, id: `question-${id}`},
      h("summary", {}, title), h("div", {}, h("p", {}, ask),
      h("div.row", {}, prepare && button(label, () => { restore(); PREPARE[prepare](); }), button("Check", async () => {
        score.textContent = "Looking …";
        const {good, says} = state.ids.length ? await QUESTIONS[kind](given) : {says: "Type a text first."};
        score.textContent = (good ? "Yes. " : "") + says;
        score.classList.toggle("good", Boolean(good));
        if (good) { done.add(id); card.dataset.done = ""; showCards(); }
      })), score, h("details", {}, h("summary", {}, "A hint"), h("p", {}, hint))));
    return card;
  }));
}
const showCards = () =>
  $("questions-h").textContent = `Find out${done.size ? `: ${done.size} of ${about.questions.length}` : ""}`;

// ---- The beginning ---------------------------------------------------------------------------------------------------

function begin() {
  const dark = matchMedia("(prefers-color-scheme: dark)"), kind = config.n_kv_head < H
    ? `${H} heads over ${config.n_kv_head} keys` : `${H} ${H === 1 ? "head" : "heads"}`;
  theme(dark.matches ? "dark" : "light");
  dark.addEventListener("change", event => { theme(event.matches ? "dark" : "light"); update(); });
  $("theme").addEventListener("click", () => { theme(document.documentElement.dataset.theme === "dark" ? "light"
    : "dark"); update(); });
  document.title = `Inside ${about.name}`;
  $("name").textContent = about.name;
  $("facts").textContent = `${L} ${L === 1 ? "layer" : "layers"}, ${kind}, ${config.d_model} numbers wide, ${about.parameters.toLocaleString("en")} weights, ${V.toLocaleString("en")} pieces, at most ${LIMIT} at once`;
  $("where").append(...STAGES.map(name => h("option", {}, name)));
  $("text").value = about.text;
  $("text").addEventListener("input", event => read(event.target.value));
  $("write").addEventListener("click", () => writeOn(1));
  $("write-more").addEventListener("click", () => writeOn(20));
  $("pin").addEventListener("click", () => { state.pinned = state.pinned ? null : snapshot(); update(); });
  $("reset").addEventListener("click", restore);
  for (const name of ["mask", "scale", "order"]) $(name).addEventListener("change",
    event => { state.changes[name] = event.target.checked; update(); });
  for (const [id, name] of [["temperature", "temperature"], ["topk", "topK"], ["topp", "topP"], ["seed", "seed"]]) {
    $(id).addEventListener("input", event => { state.dials[name] = Math.max(0,
      Math.min(999999, Number(event.target.value) || 0)); update(); });
  }
  $("topk").max = Math.min(50, V);
  $("where").addEventListener("change", event => point({}, event.target.selectedIndex));
  $("query").addEventListener("input", event => event.target.value !== ""
    && point({query: Number(event.target.value)}));
  $("back").addEventListener("click", () => point({}, state.stage - 1));
  $("on").addEventListener("click", () => point({}, state.stage + 1));
  $("rivers-keys").addEventListener("keydown", event => {
    const by = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!by) return;
    event.preventDefault();
    point({query: state.at.query + by[0]}, state.stage + by[1]);
  });
  $("rivers-canvas").addEventListener("pointerdown", pointed);
  new ResizeObserver(update).observe($("rivers-scroll"));
  makeCards();
  read(about.text);
  const asked = document.getElementById(`question-${new URLSearchParams(location.hash.slice(1)).get("question")}`);
  if (asked) { asked.open = true; asked.scrollIntoView(); }
}
begin();
