// Checks the documents of schemas/, then the checks themselves: each must refuse copies that
// are broken on purpose, and name what is broken. Usage: node schemas.mjs FOLDER

import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Parser } from "@asyncapi/parser";
import { createConfig, lint } from "@redocly/openapi-core";
import { Ajv } from "ajv";
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const RECORD = "group-joined.v1.schema.json";
const HEADERS = "event-headers.schema.json";
const REPORT = "check-report.schema.json";
const STATUS = "spool-status.schema.json";
const ASYNCAPI = "asyncapi.yaml";
const OPENAPI = "openapi.yaml";

/** The check of each document of a folder. Returns its findings as a list of sentences. */
const CHECKS = [
  [/\.v\d+\.schema\.json$/, checkRecord],
  [/-headers\.schema\.json$/, (folder, name) => checkDrafts(readJson(join(folder, name)))],
  [/^(check-report|send-summary|spool-list|spool-status)\.schema\.json$/, checkReport],
  [/^asyncapi\.yaml$/, checkAsyncapi],
  [/^openapi\.yaml$/, checkOpenapi],
];

/** Copies that must be refused: the document, the defect, the text, its replacement, the expected finding. */
const BREAKAGES = [
  [RECORD, "an unknown type", '"type": "array"', '"type": "list"', /type must be/],
  [RECORD, "a misspelt keyword", '"minItems": 1', '"minItem": 1', /unknown keyword: "minItem"/],
  [RECORD, "a keyword that draft-07 lacks", '"if": {', '"dependentRequired": {}, "if": {', /draft-07.*unknown/],
  [RECORD, "an unknown field in its example", '"received_at": 1757577646876', '"received_on": 1', /own example/],
  [RECORD, "a rule that no patch breaks", '"minItems": 1', '"minItems": 1, "maxItems": 9', /no patch breaks .*maxItems/],
  [RECORD, "a field that is no longer required", '"group_id",', "", /group_id is in every record/],
  [RECORD, "a rule that is gone", '"enum": [', '"examples": [', /join_type is of a closed set/],
  [HEADERS, "an unknown type", '"type": "string"', '"type": "text"', /type must be/],
  [REPORT, "a misspelt keyword", '"minItems": 1', '"minItem": 1', /unknown keyword: "minItem"/],
  [REPORT, "an unknown field in its example", '"warnings": 1,', '"warnings": 1, "notes": 0,', /own example: .*unevaluated/],
  [REPORT, "a value that its example must not show", '"hidden", "value": null', '"hidden", "value": "1=s"', /own example: .*must be null/],
  [STATUS, "an unknown field in a list of its example", '"name": "dam', '"age": 1, "name": "dam', /own example: .*unevaluated/],
  [ASYNCAPI, "a $ref to no file", "group-joined.v1.schema.json", "group-joined.v2.schema.json", /ENOENT/],
  [ASYNCAPI, "a $ref to no component", "components/messageBindings/user", "components/messageBindings/x", /does not exist/],
  [ASYNCAPI, "no version", "  version: 1.0.0\n", "", /required property "version"/],
  [ASYNCAPI, "an unknown key", "action: receive", "action: receive\n    colour: black", /"colour" is not expected/],
  [ASYNCAPI, "a keyword of the wrong type", "minLength: 1", "minLength: one", /must be integer/],
  [ASYNCAPI, "another channel's message", "- $ref: '#/channels/deadLetter/", "- $ref: '#/channels/groupJoined/", /not belong/],
  [ASYNCAPI, "an example that is no record", "join_type: Apply", "join_type: Scan", /groupJoined example .*join_type/],
  [ASYNCAPI, "an example with a wrong header", "specversion: '1.0'", "specversion: '0.3'", /example .*ce_spec/],
  [ASYNCAPI, "an example of another schema", "dataschema: 'urn:zim2kafka:schema:group-joined:v1", "dataschema: 'urn:zim2kafka:schema:group-left:v1", /groupJoined example .*\$id/],
  [OPENAPI, "a $ref to no component", "schemas/Passed", "schemas/Past", /Can't resolve \$ref/],
  [OPENAPI, "no version", "  version: 1.0.0\n", "", /`version` must be present/],
  [OPENAPI, "an unknown key", "operationId: isLive", "operationId: isLive\n      colour: red", /`colour` is not expected/],
  [OPENAPI, "an unknown type", "type: integer, const: 2", "type: int, const: 2", /`type` can be one of/],
  [OPENAPI, "an operationId twice", "operationId: isLive", "operationId: isReady", /unique `operationId`/],
  [OPENAPI, "an example that its schema refuses", "status: published,", "status: lost,", /Example value.*allowed values/],
];

/** Keywords that need no patch: they forbid nothing by themselves, or nothing beyond the pattern beside them. */
const ANNOTATIONS = ["$schema", "$id", "$comment", "title", "description", "examples", "format", "if"];

/** Not strict: checkDrafts is. */
const ENGINE = addFormats(new Ajv2020({ strict: false, allErrors: true, validateSchema: false }));

async function main(folder) {
  const results = [];
  for (const name of readdirSync(folder).filter(checkOf).sort()) {
    const valid = report(`${name} is valid`, await check(folder, name));
    results.push(valid);
    // If the document itself is refused, a broken copy shows nothing.
    for (const breakage of BREAKAGES.filter(([broken]) => valid && broken === name)) {
      const [, what] = breakage;
      results.push(report(`${name} is refused with ${what}`, await checkRefusal(folder, breakage)));
    }
  }
  const failed = results.filter((passed) => !passed).length;
  console.log(`schemas: ${results.length - failed} passed, ${failed} failed`);
  return failed === 0 && results.length >= BREAKAGES.length + CHECKS.length ? 0 : 1;
}

function checkOf(name) {
  return CHECKS.find(([pattern]) => pattern.test(name))?.[1];
}

/** The tools throw if a document is missing or does not parse; that is a finding like any other. */
async function check(folder, name) {
  try {
    return await checkOf(name)(folder, name);
  } catch (error) {
    return [error.message];
  }
}

function report(line, findings) {
  console.log(`${findings.length === 0 ? "ok  " : "FAIL"} ${line}`);
  findings.forEach((finding) => console.log(`     ${finding}`));
  return findings.length === 0;
}

/**
 * A schema must be valid in the draft that it names and in the one that AsyncAPI uses. Ajv's strict
 * mode also refuses unknown keywords, which the drafts allow.
 */
function checkDrafts(schema) {
  const findings = [];
  const drafts = { "2020-12": [Ajv2020, schema], "draft-07": [Ajv, { ...schema, $schema: undefined }] };
  for (const [draft, [Engine, text]] of Object.entries(drafts)) {
    try {
      addFormats(new Engine({ strict: true, allowUnionTypes: true, allErrors: true })).compile(text);
    } catch (error) {
      findings.push(`${draft}: ${error.message}`);
    }
  }
  return findings;
}

/** The schema of what a command prints with `--json`, which must also describe its examples completely. */
function checkReport(folder, name) {
  const schema = readJson(join(folder, name));
  const findings = checkDrafts(schema);
  if (findings.length > 0) {
    return findings;
  }
  const own = schema.examples.flatMap(violationsOf(closed(schema)));
  return own.map((violation) => `its own example: ${violation}`);
}

/** The schema of an event, which must also agree with its examples. */
function checkRecord(folder, name) {
  const schema = readJson(join(folder, name));
  const findings = checkDrafts(schema);
  if (findings.length > 0) {
    return findings;
  }
  const stem = join(folder, "examples", name.replace(".schema.json", ""));
  const { record, invalid } = readJson(`${stem}.invalid.json`);
  const own = schema.examples.flatMap(violationsOf(closed(schema)));
  return [
    ...own.map((violation) => `its own example: ${violation}`),
    ...checkValid(schema, Object.entries(readJson(`${stem}.json`))),
    ...checkInvalid(schema, record, invalid),
  ];
}

/** Valid examples must pass a copy of the schema that forbids unknown fields. */
function checkValid(schema, examples) {
  const findings = examples.length > 0 ? [] : ["there are no examples"];
  const [closedViolations, violations] = [violationsOf(closed(schema)), violationsOf(schema)];
  for (const [name, example] of examples) {
    findings.push(...closedViolations(example).map((violation) => `${name}: ${violation}`));
    const grown = violations({ ...example, from_the_future: 1 });
    findings.push(...grown.map((violation) => `${name} with a further field: ${violation}`));
  }
  return findings;
}

/**
 * Each patch must make the record break exactly the rule that is given beside it: one that broke two
 * would hide that a rule is missing. For each rule of the schema there must be a patch.
 */
function checkInvalid(schema, record, rows) {
  const errors = errorsOf(schema);
  const findings = errors(record).map(({ message }) => `the record of the patches ${message}`);
  for (const { because, rule, patch } of rows) {
    const broken = errors(patched(record, patch)).map(({ schemaPath }) => schemaPath);
    if (broken.length !== 1 || broken[0] !== `#${rule}`) {
      findings.push(`${because}: the patch breaks ${broken.join(" and ") || "no rule"}`);
    }
  }
  const isBroken = ([rule, missing]) =>
    rows.some(({ rule: broken, patch: [{ op, path }] }) =>
      broken === rule && (missing === undefined || (op === "remove" && path.endsWith(`/${missing}`))));
  const unbroken = rulesOf(schema, "").filter((rule) => !isBroken(rule));
  return [...findings, ...unbroken.map((rule) => `no patch breaks ${rule.join(": ")}`)];
}

/** The copy of a document with a patch (RFC 6902) of one operation. */
function patched(document, [{ op, path, value }]) {
  if (path === "") {
    return value;
  }
  const copy = structuredClone(document);
  const names = path.split("/").slice(1);
  const parent = names.slice(0, -1).reduce((node, name) => node[name], copy);
  if (op === "remove") {
    delete parent[names.at(-1)];
  } else {
    parent[names.at(-1)] = value;
  }
  return copy;
}

/** The rules of a schema: where each is and, of `required`, for which name. */
function rulesOf(schema, path) {
  return Object.entries(schema).flatMap(([key, rule]) => {
    const at = `${path}/${key}`;
    const walkEach = () => Object.entries(rule).flatMap(([name, inner]) => rulesOf(inner, `${at}/${name}`));
    // A type beside const or enum is for code generators and forbids nothing more.
    if (ANNOTATIONS.includes(key) || (key === "type" && ("const" in schema || "enum" in schema))) {
      return [];
    }
    switch (key) {
      case "properties": case "allOf": return walkEach();
      case "items": case "then": case "propertyNames": return rulesOf(rule, at);
      case "required": return rule.map((name) => [at, name]);
      default: return [[at]];
    }
  });
}

/** The topics, with the parser of the AsyncAPI initiative, which does not check the examples of messages. */
async function checkAsyncapi(folder) {
  const source = join(folder, ASYNCAPI);
  const { document, diagnostics } = await new Parser().parse(readFileSync(source, "utf8"), { source });
  const [ERROR, WARNING] = [0, 1];
  const findings = diagnostics
    .filter(({ severity }) => severity === ERROR || severity === WARNING)
    .map(({ message, path }) => `${path.join(".")}: ${message}`);
  for (const message of document?.allMessages().all() ?? []) {
    const examples = message.examples().all();
    if (examples.length === 0) {
      findings.push(`${message.id()} has no example`);
    }
    for (const example of examples) {
      const [payload, headers] = [message.payload().json(), message.headers().json()];
      const broken = [
        ...violationsOf(closed(payload))(example.payload()),
        ...violationsOf(closed(headers))(example.headers()),
        ...(example.headers().ce_dataschema === payload.$id ? [] : ["ce_dataschema is not the payload's $id"]),
      ];
      findings.push(...broken.map((violation) => `${message.id()} example ${example.name()}: ${violation}`));
    }
  }
  return findings;
}

/** The HTTP side, with Redocly's strictest rules, except the one that forbids a server on localhost. */
async function checkOpenapi(folder) {
  const config = await createConfig({ extends: ["recommended-strict"], rules: { "no-server-example.com": "off" } });
  const problems = await lint({ ref: join(folder, OPENAPI), config });
  return problems.map(({ message, location }) => `${location[0]?.pointer}: ${message}`);
}

async function checkRefusal(folder, [name, , from, to, expected]) {
  const copy = mkdtempSync(join(tmpdir(), "schemas-"));
  try {
    cpSync(folder, copy, { recursive: true });
    const text = readFileSync(join(copy, name), "utf8");
    if (!text.includes(from)) {
      return [`it no longer contains the text to be broken: ${from}`];
    }
    writeFileSync(join(copy, name), text.replace(from, to));
    const findings = await check(copy, name);
    const refused = findings.some((finding) => expected.test(finding));
    return refused ? [] : ["it was not refused, or for another reason:", ...findings];
  } finally {
    rmSync(copy, { recursive: true });
  }
}

/** The errors of a value. "if" and "propertyNames" only repeat other errors. */
function errorsOf(schema) {
  const validate = ENGINE.compile(withoutIds(schema));
  return (value) => {
    validate(value);
    return (validate.errors ?? []).filter(({ keyword }) => keyword !== "if" && keyword !== "propertyNames");
  };
}

/** The same as sentences. */
function violationsOf(schema) {
  const errors = errorsOf(schema);
  return (value) => errors(value).map(({ instancePath, message }) => `${instancePath || "it"} ${message}`);
}

/** The engine keeps what has an ID, and refuses another with the same one. */
function withoutIds(schema) {
  return JSON.parse(JSON.stringify(schema, (key, value) => (["$id", "$schema"].includes(key) ? undefined : value)));
}

/** A copy that forbids unknown fields, also in items. */
function closed(schema) {
  const close = (key, value) =>
    value?.type === "object" && "properties" in value && !("unevaluatedProperties" in value)
      ? { ...value, unevaluatedProperties: false }
      : value;
  const copy = JSON.parse(JSON.stringify(schema, close));
  return copy.type === "object" ? { ...copy, unevaluatedProperties: false } : copy;
}

function readJson(path) {
  return JSON.parse(readFileSync(path, "utf8"));
}

process.exitCode = await main(process.argv[2]);
