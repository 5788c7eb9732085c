"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const store = "blind votes " + data.page;
  const count = data.pairs.length;
  let votes = {};
  let voter = "";
  let shown = 0;

  // Without storage (a private window, a strict browser) votes live as long as the page.
  const load = () => {
    try {
      return JSON.parse(localStorage.getItem(store)) || {};
    } catch {
      return {};
    }
  };
  const keep = () => {
    try {
      localStorage.setItem(store, JSON.stringify({ voter, votes }));
      return true;
    } catch {
      return false;
    }
  };

  const candidateLeft = () => {
    const coded = atob(data.key);
    let state = parseInt(data.page.slice(0, 8), 16) || 1;
    const sides = [];
    for (let i = 0; i < coded.length; i++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      sides.push(((coded.charCodeAt(i) ^ ((state >>> 11) & 255)) & 1) === 1);
    }
    return sides;
  };

  const wilson = (hits, all) => {
    if (all === 0) return [0, 1];
    const z = 1.959963984540054;
    const share = hits / all;
    const scale = 1 + (z * z) / all;
    const middle = (share + (z * z) / (2 * all)) / scale;
    const root = Math.sqrt((share * (1 - share)) / all + (z * z) / (4 * all * all));
    return [Math.max(0, middle - (z * root) / scale), Math.min(1, middle + (z * root) / scale)];
  };
  const percent = (share) => (100 * share).toFixed(1) + " %";

  const result = () => {
    const sides = candidateLeft();
    let candidate = 0;
    let baseline = 0;
    let neither = 0;
    for (const [number, choice] of Object.entries(votes)) {
      if (choice === "none") neither++;
      else if ((choice === "left") === sides[number]) candidate++;
      else baseline++;
    }
    const all = candidate + baseline;
    let words = `Candidate ${candidate}, baseline ${baseline}, no difference ${neither}. `;
    if (all === 0) return words + "You preferred neither.";
    const [low, high] = wilson(candidate, all);
    words += `Of ${all} with a preference ${percent(candidate / all)} chose the candidate `;
    words += `(${percent(low)} to ${percent(high)}): `;
    if (low > 0.5) return words + "the candidate is preferred.";
    return words + (high < 0.5 ? "the baseline is preferred." : "no preference is shown.");
  };

  const picture = (id, source) => {
    const image = at(id);
    image.onload = () => image.classList.toggle("small", image.naturalWidth <= 256);
    image.src = source;
  };

  const draw = () => {
    const done = Object.keys(votes).length;
    const ended = shown >= count;
    at("progress").textContent = ended
      ? `All ${count} pairs are done.`
      : `Pair ${shown + 1} of ${count}: which picture is better, and fits the words better?`;
    at("bar").style.width = `${(100 * done) / count}%`;
    at("vote").hidden = ended;
    at("end").hidden = !ended;
    at("back").disabled = shown === 0;
    at("clear").disabled = done === 0;
    if (ended) {
      at("result").textContent = result();
    } else {
      const pair = data.pairs[shown];
      at("caption").textContent = pair.caption;
      picture("left-image", pair.left);
      picture("right-image", pair.right);
    }
  };

  const say = (words) => {
    at("said").textContent = words;
  };
  const kept = (well) => {
    at("kept").textContent = well
      ? "Votes are kept in this browser: a reload loses nothing."
      : "This browser keeps nothing: save the votes before you close the page.";
  };
  const vote = (choice) => {
    if (shown >= count) return;
    votes[shown] = choice;
    shown++;
    kept(keep());
    say("");
    draw();
  };
  const back = () => {
    if (shown === 0) return;
    shown--;
    draw();
  };

  const saved = () =>
    JSON.stringify(
      {
        format: data.format,
        study: data.study,
        trial: data.trial,
        page: data.page,
        key: data.key,
        voter,
        saved: new Date().toISOString(),
        votes,
      },
      null,
      1,
    ) + "\n";

  const save = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([saved()], { type: "application/json" }));
    link.download = "votes.json";
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    say(`Saved ${Object.keys(votes).length} votes as votes.json, in the folder of downloads.`);
  };
  const copy = async () => {
    const words = saved();
    try {
      await navigator.clipboard.writeText(words);
      say("Copied. Paste it into a file named votes.json.");
    } catch {
      at("text").hidden = false;
      at("text").value = words;
      at("text").select();
      say("This browser does not let the page copy: copy the text below.");
    }
  };
  const clear = () => {
    if (!confirm("Forget all votes on this page and start again?")) return;
    votes = {};
    shown = 0;
    keep();
    say("");
    draw();
  };

  const name = () => {
    const parts = crypto.getRandomValues(new Uint32Array(2));
    return Array.from(parts, (part) => part.toString(16).padStart(8, "0")).join("");
  };
  const start = () => {
    const before = load();
    voter = before.voter || name();
    for (const [number, choice] of Object.entries(before.votes || {})) {
      if (Number(number) < count) votes[number] = choice;
    }
    while (shown < count && shown in votes) shown++;
    kept(keep());
    draw();
  };

  for (const choice of ["left", "right", "none"]) {
    at(choice).addEventListener("click", () => vote(choice));
  }
  for (const [id, act] of [["back", back], ["again", back], ["save", save], ["copy", copy], ["clear", clear]]) {
    at(id).addEventListener("click", act);
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const choice = { 1: "left", 2: "right", 0: "none" }[event.key];
    if (choice) vote(choice);
    else if (event.key === "ArrowLeft" || event.key === "Backspace") back();
  });
  start();
})();
