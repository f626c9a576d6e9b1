// Checks the dashboard against the types of @grafana/schema, which Grafana generates from the schema
// of its dashboards, at the version of docker-compose.yml. Then the check itself: it must refuse
// copies that are broken on purpose. Usage: node dashboard.mjs ROOT

import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import ts from "typescript";

const here = dirname(fileURLToPath(import.meta.url));
const root = process.argv[2];
const text = readFileSync(join(root, "deploy/grafana/dashboards/zim2kafka.json"), "utf8");

// Its package exports the types of its own interfaces only.
const TYPES = "./node_modules/@grafana/schema/dist/types/raw";

/** The kinds of panels: the types of their options, and of the part `custom` of their fields. */
const PANELS = {
  stat: ["Options", null],
  table: ["Options", "FieldConfig"],
  timeseries: ["Options", "FieldConfig"],
};

/** Copies that must be refused: the defect, the text, its replacement, the expected finding. */
const BREAKAGES = [
  ["a misspelt key of the dashboard", '"schemaVersion"', '"schemaversion"', /schemaVersion/i],
  ["a misspelt key of a panel", '"gridPos"', '"gridPosition"', /gridPosition/],
  ["an unknown kind of panel", '"type": "stat"', '"type": "number"', /number/],
  ["a misspelt option", '"graphMode"', '"graphmode"', /graphmode/],
  ["an unknown value of an option", '"colorMode": "value"', '"colorMode": "text"', /"text"/],
  ["a misspelt setting of lines", '"fillOpacity"', '"opacity"', /opacity/],
  ["an annotation without a colour", '"iconColor": "orange", ', "", /iconColor/],
  ["an unknown kind of variable", '"type": "query"', '"type": "queries"', /queries/],
  ["a threshold without a colour", '{"color": "green", "value": null}', '{"value": null}', /color/],
];

/** The source that assigns each part of the dashboard to its type. */
function source(dashboard) {
  const { annotations, panels, ...rest } = dashboard;
  const lines = [
    `import type { AnnotationQuery, Dashboard, Panel, RowPanel } from "${TYPES}/dashboard/x/types.gen";`,
    // Enums as the texts that stand in JSON.
    "type Json<T> = 0 extends 1 & T ? any : T extends string ? `${T}` : T extends (infer U)[] ? Json<U>[] : T extends object ? { [K in keyof T]: Json<T[K]> } : T;",
    // What is left out has its default.
    "type Part<T> = 0 extends 1 & T ? any : T extends (infer U)[] ? Part<U>[] : T extends object ? { [K in keyof T]?: Part<T[K]> } : T;",
  ];
  for (const [type, [options, custom]] of Object.entries(PANELS)) {
    const names = [`${options} as ${type}Options`, custom && `${custom} as ${type}Custom`].filter(Boolean);
    lines.push(`import type { ${names.join(", ")} } from "${TYPES}/composable/${type}/panelcfg/x/types.gen";`);
  }
  lines.push(`const dashboard: Json<Omit<Dashboard, "annotations" | "panels">> = ${JSON.stringify(rest)};`);
  // The schema leaves them open for the queries of each kind of data source.
  lines.push(`const annotations: { list: (Json<AnnotationQuery> & Record<string, unknown>)[] } = ${JSON.stringify(annotations)};`);
  for (const { options, fieldConfig, ...panel } of panels) {
    const at = `/* panel ${panel.id}, ${panel.title.replaceAll("*/", "")} */`;
    if (panel.type === "row") {
      lines.push(`${at} const row${panel.id}: Json<RowPanel> = ${JSON.stringify(panel)};`);
      continue;
    }
    lines.push(`${at} const panel${panel.id}: Json<Omit<Panel, "options" | "fieldConfig">> & { type: ${Object.keys(PANELS).map((type) => JSON.stringify(type)).join(" | ")} } = ${JSON.stringify(panel)};`);
    const { custom, ...defaults } = fieldConfig.defaults;
    const fields = { ...fieldConfig, defaults };
    lines.push(`${at} const fields${panel.id}: Json<NonNullable<Panel["fieldConfig"]>> = ${JSON.stringify(fields)};`);
    if (!(panel.type in PANELS)) continue;
    lines.push(`${at} const options${panel.id}: Part<Json<${panel.type}Options>> = ${JSON.stringify(options)};`);
    if (custom && PANELS[panel.type][1]) {
      lines.push(`${at} const custom${panel.id}: Part<Json<${panel.type}Custom>> = ${JSON.stringify(custom)};`);
    }
  }
  return lines.join("\n");
}

let previous;

/** What is wrong with a dashboard, as a list of sentences. */
function check(json) {
  const file = join(here, "dashboard.ts");
  writeFileSync(file, source(JSON.parse(json)));
  const settings = {
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    noEmit: true,
    skipLibCheck: true,
    strict: true,
    target: ts.ScriptTarget.ES2022,
    types: [],
  };
  // What was parsed for the last one is used again.
  const program = ts.createProgram([file], settings, undefined, previous);
  previous = program;
  return ts.getPreEmitDiagnostics(program).map(({ file: at, start, messageText }) => {
    const message = ts.flattenDiagnosticMessageText(messageText, " ");
    if (at === undefined) return message;
    const line = at.text.slice(at.text.lastIndexOf("\n", start) + 1);
    const where = /^\/\* (.*?) \*\//.exec(line)?.[1] ?? "dashboard";
    return `${where}: ${message}`;
  });
}

const compose = readFileSync(join(root, "docker-compose.yml"), "utf8");
const wanted = /image: grafana\/grafana:(\S+)/.exec(compose)?.[1];
const { version } = JSON.parse(readFileSync(join(here, "node_modules/@grafana/schema/package.json"), "utf8"));
const findings = wanted === version ? [] : [`docker-compose.yml has Grafana ${wanted}, .ci/package.json has @grafana/schema ${version}; make them equal`];
findings.push(...check(text));
for (const [defect, from, to, expected] of BREAKAGES) {
  const broken = text.replace(from, to);
  if (broken === text) findings.push(`the dashboard has no ${from} to test with ${defect}`);
  else if (!check(broken).some((finding) => expected.test(finding))) findings.push(`${defect} is not found`);
}
if (findings.length > 0) {
  console.error(findings.map((finding) => `deploy/grafana/dashboards/zim2kafka.json: ${finding}`).join("\n"));
  process.exit(1);
}
console.log(`the dashboard is one of Grafana ${version}; ${BREAKAGES.length} broken copies are refused`);
