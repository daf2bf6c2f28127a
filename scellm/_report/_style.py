"""How the page looks: on screens of any width, in light and dark, and on paper."""

STYLE = """\
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #4a525c; --paper: #ffffff; --line: #c9ced6; --shade: #f3f5f8;
  --link: #0a58a6; --warn: #fff4d6; --warnline: #b7791f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #b4bbc5; --paper: #16191d; --line: #454c56;
  --shade: #21262c; --link: #8ab8ff; --warn: #3a2f12; --warnline: #d9a441; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; overflow-wrap: anywhere; }
header, main, footer { max-width: 70rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 1.5rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 .7rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .5rem; }
p, ul, ol { margin: .55rem 0; max-width: 46rem; }
.soft, caption, figcaption, footer { color: var(--soft); font-size: .9rem; }
a { color: var(--link); }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; max-width: none; }
.skip { position: absolute; left: -999rem; }
.skip:focus { position: static; }
.wide { overflow-x: auto; margin: .9rem 0; }
table { border-collapse: collapse; min-width: min(100%, 30rem); font-size: .88rem; line-height: 1.4; }
caption { text-align: left; padding-bottom: .35rem; position: sticky; left: 0; max-width: min(46rem, calc(100vw - 2.5rem)); }
th, td { text-align: left; vertical-align: top; padding: .3rem .65rem; border-bottom: 1px solid var(--line);
  overflow-wrap: normal; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
tbody th { font-weight: 600; }
.facts { width: 100%; table-layout: fixed; }
.facts th { width: 13rem; font-weight: 500; }
.facts td { overflow-wrap: anywhere; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--shade); padding: .05em .25em;
  border-radius: 3px; }
pre { background: var(--shade); padding: .7rem .9rem; border-radius: 5px; white-space: pre-wrap; overflow-wrap: anywhere; }
pre code { padding: 0; background: none; }
.warning { background: var(--warn); border-left: 4px solid var(--warnline); padding: .1rem .9rem; margin: .7rem 0; }
.absent { color: var(--soft); }
figure { margin: 1.1rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #ffffff; border-radius: 4px; }
footer { padding-bottom: 2.5rem; margin-top: 2rem; border-top: 1px solid var(--line); padding-top: .7rem; }
@media (max-width: 40rem) { body { font-size: 15px; } figure img { max-width: none; width: 38rem; } .facts th { width: 8.5rem; } th, td { padding: .3rem .45rem; } }
@media print { :root { --ink: #000; --soft: #333; --paper: #fff; --line: #999; --shade: #f3f3f3; --link: #000; --warn: #fff;
  --warnline: #555; } body { font-size: 10.5pt; } nav, .skip { display: none; } header, main, footer { max-width: none;
  padding: 0; } .wide { overflow: visible; } table { font-size: 8.5pt; } tr, figure, .warning { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; } thead { display: table-header-group; } }
@page { margin: 16mm 14mm; }
"""
