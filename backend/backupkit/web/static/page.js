// Optional: the pages work without it. Live progress, copying of names, presets, return to the last session.
"use strict";

const session = document.body.dataset.session;
if (session) localStorage.setItem("backupkit", session);
if (document.body.dataset.door === "out") localStorage.removeItem("backupkit");
if (document.body.dataset.door === "in" && !location.search) {
  const known = localStorage.getItem("backupkit");
  if (known && /^\/[A-Za-z0-9_-]+$/.test(known)) location.replace(`${known}/`);
}

const job = document.getElementById("job");
if (job) {
  const events = new EventSource(job.dataset.events);
  events.onmessage = (message) => {
    const now = JSON.parse(message.data);
    if (now.state !== "running") {
      events.close();
      location.reload();
      return;
    }
    document.getElementById("step").textContent = now.step;
    document.getElementById("amount").textContent = now.amount;
    document.getElementById("seconds").textContent = now.seconds;
    const bar = document.getElementById("bar");
    if (now.share === null) bar.removeAttribute("value");
    else bar.value = now.share;
    const said = document.getElementById("said");
    said.replaceChildren(...now.said.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
    for (const button of document.querySelectorAll("#cancel button")) button.disabled = !now.can_be_cancelled;
  };
}

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", () => navigator.clipboard.writeText(button.dataset.copy));
}

for (const button of document.querySelectorAll("[data-values]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    for (const [name, value] of Object.entries(JSON.parse(button.dataset.values))) {
      const entry = document.getElementById(name);
      if (!entry || entry.disabled) continue;
      if (entry.type === "checkbox") entry.checked = value === "true";
      else entry.value = value;
    }
  });
}

for (const entry of document.querySelectorAll("[data-must-be]")) {
  const button = entry.form.querySelector("button:not([type])");
  const look = () => { button.disabled = entry.value.trim() !== entry.dataset.mustBe; };
  entry.addEventListener("input", look);
  look();
}

// Show the choices on a timeline, newest at the right.
for (const choice of document.querySelectorAll("select[data-slider]")) {
  const slider = document.createElement("input");
  const last = choice.options.length - 1;
  Object.assign(slider, { type: "range", min: 0, max: last, value: last, ariaLabel: choice.dataset.slider });
  slider.addEventListener("input", () => { choice.selectedIndex = last - slider.value; });
  choice.addEventListener("change", () => { slider.value = last - choice.selectedIndex; });
  choice.closest("p").after(slider);
}
