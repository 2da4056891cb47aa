// Similarity of every patch to the one pointed at, from the tokens that travel in this page.
"use strict";
(() => {
  const looked = JSON.parse(document.getElementById("looked").textContent);
  const canvases = [...document.querySelectorAll("canvas")];
  const selects = [...document.querySelectorAll("select")];
  const originals = looked.images.map((_, i) => document.getElementById("image-" + i));
  const under = document.getElementById("under");
  const status = document.getElementById("status");
  const query = { image: 0, x: 0.5, y: 0.5, held: false };

  document.querySelectorAll(".ramp").forEach((ramp) => {
    ramp.style.background = `linear-gradient(to right, ${looked.ramp.map((c) => `rgb(${c})`)})`;
  });

  // The shortened tokens of each image, unpacked when an encoder is first chosen. Their inner
  // products are nearly the cosines of the full ones, as they are.
  const made = new Map();
  function tokens(place) {
    if (made.has(place)) return made.get(place);
    const { data, scales } = looked.encoders[place];
    const result = data.map((text) => {
      const bytes = Int8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      return Float32Array.from(bytes, (byte, i) => byte * scales[i % scales.length]);
    });
    made.set(place, result);
    return result;
  }

  function patchAt(place, image, x, y) {
    const [rows, columns] = looked.encoders[place].grids[image];
    const row = Math.min(rows - 1, Math.max(0, Math.floor(y * rows)));
    return { row, column: Math.min(columns - 1, Math.max(0, Math.floor(x * columns))), rows, columns };
  }

  function maps(place) {
    const all = tokens(place);
    const rank = looked.encoders[place].scales.length;
    const at = patchAt(place, query.image, query.x, query.y);
    const start = (at.row * at.columns + at.column) * rank;
    const token = all[query.image].subarray(start, start + rank);
    return all.map((rows, image) => {
      const map = new Float32Array(rows.length / rank);
      for (let i = 0; i < map.length; i++) {
        let sum = 0;
        for (let k = 0; k < rank; k++) sum += rows[i * rank + k] * token[k];
        map[i] = sum;
      }
      if (image === query.image) map[at.row * at.columns + at.column] = 1; // to itself, whatever was cut off
      return map;
    });
  }

  function colour(share) {
    const place = Math.min(Math.max(share, 0), 1) * (looked.ramp.length - 1);
    const below = Math.min(Math.floor(place), looked.ramp.length - 2);
    const rest = place - below;
    return looked.ramp[below].map((c, i) => Math.round(c + rest * (looked.ramp[below + 1][i] - c)));
  }

  function draw(canvas, place, map, low) {
    const image = Number(canvas.dataset.image);
    const original = originals[image];
    canvas.width = original.naturalWidth;
    canvas.height = original.naturalHeight;
    const context = canvas.getContext("2d");
    if (under.checked) {
      context.filter = "grayscale(1)"; // colour is similarity alone
      context.drawImage(original, 0, 0, canvas.width, canvas.height);
      context.filter = "none";
    }
    const [rows, columns] = looked.encoders[place].grids[image];
    const small = new ImageData(columns, rows);
    for (let i = 0; i < map.length; i++) {
      small.data.set([...colour((map[i] - low) / (1 - low || 1)), under.checked ? 175 : 255], 4 * i);
    }
    const tile = document.createElement("canvas");
    tile.width = columns;
    tile.height = rows;
    tile.getContext("2d").putImageData(small, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(tile, 0, 0, canvas.width, canvas.height);
    if (image === query.image) {
      const at = patchAt(place, image, query.x, query.y);
      const box = [at.column, at.row, 1, 1].map((v, i) => v * (i % 2 ? canvas.height / rows : canvas.width / columns));
      for (const [style, width] of [["#000", 5], ["#fff", 2.5]]) {
        context.strokeStyle = style;
        context.lineWidth = (width * canvas.width) / 384;
        context.strokeRect(...box);
      }
    }
  }

  function show() {
    const sentences = [];
    selects.forEach((select, panel) => {
      const place = Number(select.value);
      const all = maps(place);
      const low = Math.min(...all.map((map) => map.reduce((a, b) => Math.min(a, b))));
      canvases
        .filter((canvas) => Number(canvas.dataset.panel) === panel)
        .forEach((canvas) => draw(canvas, place, all[Number(canvas.dataset.image)], low));
      const legend = select.closest(".panel").querySelector(".low");
      legend.textContent = low.toFixed(2);
      const elsewhere = all
        .map((map, image) => ({ image, best: map.reduce((a, b) => Math.max(a, b)) }))
        .filter(({ image }) => image !== query.image)
        .sort((a, b) => b.best - a.best)[0];
      const most = elsewhere ? `, most similar elsewhere ${elsewhere.best.toFixed(2)} in ${looked.images[elsewhere.image]}` : "";
      sentences.push(`${looked.encoders[place].name}: from ${low.toFixed(2)}${most}`);
    });
    const at = patchAt(Number(selects[0].value), query.image, query.x, query.y);
    status.textContent = `Row ${at.row + 1}, column ${at.column + 1} of ${looked.images[query.image]}${query.held ? " (held)" : ""}. ${sentences.join("; ")}.`;
  }

  function point(canvas, event) {
    const box = canvas.getBoundingClientRect();
    query.image = Number(canvas.dataset.image);
    query.x = (event.clientX - box.left) / box.width;
    query.y = (event.clientY - box.top) / box.height;
  }

  let waiting = false;
  function soon() { // at most one drawing a frame while the pointer moves
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; show(); });
  }

  canvases.forEach((canvas) => {
    const place = () => Number(selects[Number(canvas.dataset.panel)].value);
    canvas.addEventListener("pointermove", (event) => {
      if (query.held || event.pointerType === "touch") return;
      point(canvas, event);
      soon();
    });
    canvas.addEventListener("click", (event) => {
      const before = JSON.stringify([query.image, patchAt(place(), query.image, query.x, query.y)]);
      point(canvas, event);
      const same = before === JSON.stringify([query.image, patchAt(place(), query.image, query.x, query.y)]);
      query.held = !(query.held && same);
      show();
    });
    canvas.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.key === "Enter" || event.key === " ") query.held = !query.held;
      else if (event.key === "Escape") query.held = false;
      else if (!move) return;
      event.preventDefault();
      const image = Number(canvas.dataset.image);
      if (move) {
        if (query.image !== image) Object.assign(query, { image, x: 0.5, y: 0.5 });
        const at = patchAt(place(), image, query.x, query.y);
        query.x = (Math.min(at.columns - 1, Math.max(0, at.column + move[0])) + 0.5) / at.columns;
        query.y = (Math.min(at.rows - 1, Math.max(0, at.row + move[1])) + 0.5) / at.rows;
      }
      show();
    });
  });
  selects.forEach((select) => select.addEventListener("change", show));
  under.addEventListener("change", show);
  Promise.all(originals.map((original) => original.decode())).then(() => {
    show();
    document.documentElement.dataset.ready = "true";
  });
})();
