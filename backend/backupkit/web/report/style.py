"""How the report looks: on a screen, light or dark, on a phone, on paper."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #f4f5f7; --card: #ffffff; --line: #e2e5ea; --text: #1a2230; --soft: #5a6474; --faint: #c9ced6;
  --fine: #17754a; --fine-soft: #e3f4eb; --fine-mid: #74c498;
  --warning: #8f5a00; --warning-soft: #fdf2d8;
  --critical: #b8291f; --critical-soft: #fdeae8;
  --chart: #2c66c4; --chart-soft: #2c66c422;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #10141a; --card: #181e26; --line: #2a323d; --text: #e6e9ee; --soft: #9aa5b4; --faint: #414b58;
    --fine: #4cc38a; --fine-soft: #14301f; --fine-mid: #2a7d55;
    --warning: #f0b849; --warning-soft: #33270d;
    --critical: #ff8178; --critical-soft: #3b1714;
    --chart: #78a9f5; --chart-soft: #78a9f526;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 40px; display: grid; gap: 18px; }
header { display: flex; flex-wrap: wrap; gap: 2px 16px; align-items: baseline; justify-content: space-between; }
h1 { font-size: 22px; line-height: 1.25; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 15px; margin: 0 0 12px; }
p { margin: 0 0 8px; }
p:last-child, ul:last-child { margin-bottom: 0; }
.soft, footer { color: var(--soft); }
code { font: .9em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code.type {
  display: inline-block; max-width: 100%; padding: 1px 8px; border-radius: 6px; overflow-wrap: anywhere;
  background: var(--page); border: 1px solid var(--line); color: var(--text);
}
section, .status {
  min-width: 0; padding: 20px; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
}
.status { display: flex; gap: 18px; align-items: flex-start; border-left-width: 6px; }
.status > svg { flex: none; width: 46px; height: 46px; }
.status > div { min-width: 0; }
.status h2 { font-size: 20px; line-height: 1.35; margin: 0; overflow-wrap: anywhere; }
.status .level { font-weight: 600; text-transform: uppercase; letter-spacing: .06em; font-size: 12px; margin: 0; }
.status ul { list-style: none; margin: 12px 0 0; padding: 0; display: grid; gap: 10px; }
.status li { overflow-wrap: anywhere; }
.fine { border-color: var(--fine); background: var(--fine-soft); }
.warning { border-color: var(--warning); background: var(--warning-soft); }
.critical { border-color: var(--critical); background: var(--critical-soft); }
.fine .level, .good { color: var(--fine); }
.warning .level, .doubtful { color: var(--warning); }
.critical .level, .bad { color: var(--critical); }
.good, .doubtful, .bad { white-space: nowrap; font-weight: 600; }
.tiles {
  display: grid; grid-template-columns: repeat(3, 1fr); gap: 1px; margin: 0; overflow: hidden;
  background: var(--line); border: 1px solid var(--line); border-radius: 12px;
}
.tiles div { background: var(--card); padding: 16px 20px; min-width: 0; }
.tiles dt { color: var(--soft); font-size: 13px; }
.tiles dd { margin: 0; overflow-wrap: anywhere; font-size: 13px; color: var(--soft); }
.tiles dd:first-of-type {
  font-size: 21px; line-height: 1.35; font-weight: 600; color: var(--text); letter-spacing: -.01em;
}
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 18px; min-width: 0; }
.chart { display: block; width: 100%; height: auto; }
.chart + .chart { margin-top: 14px; }
.chart text { font-size: 11px; fill: var(--soft); }
.calendar { max-width: 520px; }
.calendar text { font-size: 8.5px; }
.chart .title { font-size: 12px; font-weight: 600; fill: var(--text); }
.grid { stroke: var(--line); stroke-width: 1; }
.curve { fill: none; stroke: var(--chart); stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.area { fill: var(--chart-soft); }
.dot { fill: var(--chart); }
.box { stroke-width: 1.5; }
.glyph { fill: none; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; }
.proven .box { fill: var(--fine); stroke: var(--fine); } .proven .glyph { stroke: var(--card); }
.made .box { fill: var(--fine-mid); stroke: var(--fine-mid); }
.level-mark .glyph { stroke: var(--card); } .fine .box { fill: var(--fine); } .warning .box { fill: var(--warning); }
.critical .box { fill: var(--critical); }
.removed .box { fill: var(--fine-soft); stroke: var(--fine-mid); }
.failed .box, .damaged .box { fill: var(--critical); stroke: var(--critical); }
.failed .glyph, .damaged .glyph { stroke: var(--card); }
.missed .box { fill: var(--critical-soft); stroke: var(--critical); } .missed .glyph { stroke: var(--critical); }
.open .box { fill: none; stroke: var(--soft); stroke-dasharray: 3 3; }
.before .box { fill: none; stroke: var(--line); }
.legend {
  list-style: none; display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 12px 0 8px; padding: 0;
  font-size: 13px; color: var(--soft);
}
.legend li { display: flex; align-items: center; gap: 6px; }
.legend svg { width: 15px; height: 15px; flex: none; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th {
  text-align: left; font-weight: 600; color: var(--soft); font-size: 12px; padding: 0 14px 6px 0; white-space: nowrap;
}
td { border-top: 1px solid var(--line); padding: 7px 14px 7px 0; vertical-align: top; overflow-wrap: break-word; }
td:first-child { min-width: 140px; overflow-wrap: anywhere; }
td.last { min-width: 120px; overflow-wrap: anywhere; }
.long td:first-child { min-width: 18em; }
td:last-child, th:last-child { padding-right: 0; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.moment { white-space: nowrap; font-variant-numeric: tabular-nums; }
.kept { margin: 0; padding-left: 18px; }
.steps { margin: 0; padding: 0; list-style: none; display: grid; gap: 8px; }
.steps .soft { display: block; font-size: 13px; }
footer { font-size: 13px; overflow-wrap: anywhere; }
@media screen and (max-width: 900px) {
  .tiles { grid-template-columns: 1fr 1fr; } .tiles div:last-child { grid-column: 1 / -1; }
  .two { grid-template-columns: minmax(0, 1fr); }
}
@media screen and (max-width: 620px) {
  main { padding: 18px 12px 28px; gap: 12px; }
  section, .status { padding: 16px 14px; }
  .status { gap: 12px; } .status > svg { width: 34px; height: 34px; } .status h2 { font-size: 17px; }
  .tiles div { padding: 12px 14px; } .tiles dd:first-of-type { font-size: 17px; }
  .two { gap: 12px; }
  thead { position: absolute; clip-path: inset(50%); }
  table, tbody { display: block; }
  tr { display: flex; flex-wrap: wrap; gap: 0 12px; border-top: 1px solid var(--line); padding: 8px 0; }
  td { display: block; border: 0; padding: 0; }
  td:first-child { flex: 1 0 100%; font-weight: 600; }
  td.last { flex: 1 0 100%; }
  td:empty { display: none; }
  td.adds::before { content: "adds "; }
  .chart text { font-size: 13px; } .chart .title { font-size: 14px; } .calendar text { font-size: 9.5px; }
}
@media print {
  :root { --page: #fff; }
  main { max-width: none; padding: 0; gap: 10px; }
  body, .legend, .steps .soft, .status .level, footer { font-size: 11px; }
  table, th, .tiles dt, .tiles dd { font-size: 9.5px; } .tiles dd:first-of-type { font-size: 15px; }
  .tiles div { padding: 8px 12px; } td { padding: 4px 8px 4px 0; } section, .status { padding: 12px 14px; }
  .two { gap: 10px; } .status h2 { font-size: 16px; }
  section, .tiles, .status { break-inside: avoid; }
  section.long { break-inside: auto; }
  tr, li { break-inside: avoid; }
  thead { display: table-header-group; }
  * { print-color-adjust: exact; }
}
"""
