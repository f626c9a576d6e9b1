// Checks the three documents of schemas/, then the checks themselves: each must refuse copies that
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
const ASYNCAPI = "asyncapi.yaml";
const OPENAPI = "openapi.yaml";

/** The check of each document of a folder. Returns its findings as a list of sentences. */
const CHECKS = { [RECORD]: checkRecord, [ASYNCAPI]: checkAsyncapi, [OPENAPI]: checkOpenapi };

/** Copies that must be refused: the document, the defect, the text, its replacement, the expected finding. */
const BREAKAGES = [
  [RECORD, "an unknown type", '"type": "array"', '"type": "list"', /type must be/],
  [RECORD, "a misspelt keyword", '"minItems": 1', '"minItem": 1', /unknown keyword: "minItem"/],
  [RECORD, "a keyword that draft-07 lacks", '"if": {', '"dependentRequired": {}, "if": {', /draft-07.*unknown/],
  [RECORD, "an unknown field in its example", '"received_at": 1499676978087', '"received_on": 1', /own example/],
  [RECORD, "a rule that no example needs", '"minItems": 1', '"minItems": 1, "maxItems": 9', /needs .*maxItems/],
  [ASYNCAPI, "a $ref to no file", "group-joined.v1.schema.json", "group-joined.v2.schema.json", /ENOENT/],
  [ASYNCAPI, "a $ref to no component", "schemas/deadLetterHeaders", "schemas/headers", /does not exist/],
  [ASYNCAPI, "no version", "  version: 1.0.0\n", "", /required property "version"/],
  [ASYNCAPI, "an unknown key", "action: receive", "action: receive\n    colour: black", /"colour" is not expected/],
  [ASYNCAPI, "a keyword of the wrong type", "minLength: 1", "minLength: one", /must be integer/],
  [ASYNCAPI, "another channel's message", "- $ref: '#/channels/deadLetter/", "- $ref: '#/channels/groupJoined/", /not belong/],
  [ASYNCAPI, "an example that is no record", "join_type: Apply", "join_type: Scan", /example apply: .join_type/],
  [ASYNCAPI, "an example with a wrong header", "specversion: '1.0'", "specversion: '0.3'", /example apply: .ce_spec/],
  [ASYNCAPI, "an example of another schema", "group-joined:v1", "group-joined:v2", /example apply: .*\$id/],
  [OPENAPI, "a $ref to no component", "schemas/Passed", "schemas/Past", /Can't resolve \$ref/],
  [OPENAPI, "no version", "  version: 1.0.0\n", "", /`version` must be present/],
  [OPENAPI, "an unknown key", "operationId: isLive", "operationId: isLive\n      colour: red", /`colour` is not expected/],
  [OPENAPI, "an unknown type", "type: integer, const: 2", "type: int, const: 2", /`type` can be one of/],
  [OPENAPI, "an operationId twice", "operationId: isLive", "operationId: isReady", /unique `operationId`/],
  [OPENAPI, "an example that its schema refuses", "status: published,", "status: lost,", /Example value.*allowed values/],
];

/** Keywords that need no invalid example: they forbid nothing, or nothing beyond the pattern beside them. */
const ANNOTATIONS = ["$schema", "$id", "$comment", "title", "description", "examples", "format"];

/** Not strict: copies with a rule removed are judged by the examples alone. */
const ENGINE = addFormats(new Ajv2020({ strict: false, allErrors: true, validateSchema: false }));

async function main(folder) {
  const results = [];
  for (const name of Object.keys(CHECKS)) {
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
  return failed === 0 ? 0 : 1;
}

/** The tools throw if a document is missing or does not parse; that is a finding like any other. */
async function check(folder, name) {
  try {
    return await CHECKS[name](folder);
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
 * The record's schema must be valid in the draft that it names and in the one that AsyncAPI uses, and
 * agree with the examples. Ajv's strict mode also refuses unknown keywords, which the drafts allow.
 */
function checkRecord(folder) {
  const schema = readJson(join(folder, RECORD));
  const findings = [];
  const drafts = { "2020-12": [Ajv2020, schema], "draft-07": [Ajv, { ...schema, $schema: undefined }] };
  for (const [draft, [Engine, text]] of Object.entries(drafts)) {
    try {
      addFormats(new Engine({ strict: true, allowUnionTypes: true, allErrors: true })).compile(text);
    } catch (error) {
      findings.push(`${draft}: ${error.message}`);
    }
  }
  if (findings.length > 0) {
    return findings;
  }
  const own = schema.examples.flatMap(violationsOf(closed(schema)));
  findings.push(...own.map((violation) => `its own example: ${violation}`), ...checkExamples(schema, folder));
  return findings.length > 0 ? findings : checkEveryRule(schema, folder);
}

/**
 * Valid examples must pass a copy of the schema that forbids unknown fields. Invalid ones must break
 * exactly one rule: one that broke two would hide that the rule in its name is missing.
 */
function checkExamples(schema, folder) {
  const valid = readFolder(join(folder, "examples"));
  const invalid = readFolder(join(folder, "examples", "invalid"));
  const findings = valid.length > 0 && invalid.length > 0 ? [] : ["there are no examples"];
  const [closedViolations, violations] = [violationsOf(closed(schema)), violationsOf(schema)];
  for (const [name, example] of valid) {
    findings.push(...closedViolations(example).map((violation) => `${name}: ${violation}`));
    const grown = violations({ ...example, from_the_future: 1 });
    findings.push(...grown.map((violation) => `${name} with a further field: ${violation}`));
  }
  for (const [name, example] of invalid) {
    const broken = violations(example);
    if (broken.length !== 1) {
      findings.push(`invalid/${name} breaks ${broken.length} rules: ${broken.join("; ")}`);
    }
  }
  return findings;
}

/** Removes the rules of the schema one by one: each time an example must fail. */
function checkEveryRule(schema, folder) {
  const findings = [];
  const expectNotice = (rule) => {
    if (checkExamples(schema, folder).length === 0) {
      findings.push(`no example needs ${rule}`);
    }
  };
  const walk = (node, path) => {
    for (const [key, saved] of Object.entries(node)) {
      // A type beside const or enum is for code generators and forbids nothing more.
      const idle = ANNOTATIONS.includes(key) || (key === "type" && ("const" in node || "enum" in node));
      if (key === "required") {
        for (const name of saved) {
          node[key] = saved.filter((other) => other !== name);
          expectNotice(`${path}/${key}: ${name}`);
        }
      } else if (saved instanceof Object && !Array.isArray(saved)) {
        walk(saved, `${path}/${key}`);
      } else if (!idle) {
        delete node[key];
        expectNotice(`${path}/${key}`);
      }
      node[key] = saved;
    }
  };
  walk(schema, "#");
  return findings;
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
      findings.push(...broken.map((violation) => `example ${example.name()}: ${violation}`));
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

/** The violations of a schema by a value. "if" and "propertyNames" only repeat other violations. */
function violationsOf({ $id, $schema, ...rules }) {
  const validate = ENGINE.compile(rules);
  return (value) => {
    validate(value);
    return (validate.errors ?? [])
      .filter(({ keyword }) => keyword !== "if" && keyword !== "propertyNames")
      .map(({ instancePath, message }) => `${instancePath || "it"} ${message}`);
  };
}

function closed(schema) {
  return schema.type === "object" ? { ...schema, unevaluatedProperties: false } : schema;
}

function readFolder(folder) {
  const names = readdirSync(folder).filter((name) => name.endsWith(".json"));
  return names.map((name) => [name, readJson(join(folder, name))]);
}

function readJson(path) {
  return JSON.parse(readFileSync(path, "utf8"));
}

process.exitCode = await main(process.argv[2]);
