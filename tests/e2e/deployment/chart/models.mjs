// Are objects of the Prometheus operator, cert-manager and the Gateway API of their published types?
//
// models.mjs DIRECTORY: the objects come as a JSON list on standard input; DIRECTORY holds the packages @kubernetes-models/* and
// typescript. Their validators find wrong types and missing fields at run time, the compiler finds fields that do not exist.
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const directory = process.argv[2];
const require = createRequire(join(directory, "node_modules", "/"));
const ts = require("typescript");
const packages = {
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
  "cert-manager.io/v1": "@kubernetes-models/cert-manager/cert-manager.io/v1",
  "gateway.networking.k8s.io/v1": "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1",
};
// The one kind for which no package has types: every field that the Grafana operator documents and the chart uses.
const grafanaDashboard = `interface GrafanaDashboard {
  apiVersion: "grafana.integreatly.org/v1beta1"; kind: "GrafanaDashboard";
  metadata: { name: string; namespace: string; labels: Record<string, string>; annotations?: Record<string, string> };
  spec: {
    instanceSelector: { matchLabels?: Record<string, string>; matchExpressions?: object[] };
    allowCrossNamespaceImport?: boolean; folder?: string; configMapRef: { name: string; key: string };
  };
}`;

const objects = JSON.parse(readFileSync(0, "utf8"));
const problems = [];
const lines = [grafanaDashboard];
for (const [index, object] of objects.entries()) {
  const text = JSON.stringify(object, null, 1);
  if (object.kind === "GrafanaDashboard") {
    lines.push(`export const object${index}: GrafanaDashboard = ${text};`);
    continue;
  }
  const home = packages[object.apiVersion];
  if (!home) {
    problems.push(`${object.kind} ${object.metadata.name}: no types are known for ${object.apiVersion}`);
    continue;
  }
  lines.push(`import { I${object.kind} as Type${index} } from "${home}/${object.kind}";`);
  lines.push(`export const object${index}: Type${index} = ${text};`);
  const Model = (await import(join(directory, "node_modules", home, `${object.kind}.js`)))[object.kind];
  try {
    new Model(object).validate();
  } catch (error) {
    problems.push(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
}

const work = mkdtempSync(join(tmpdir(), "cachalot-models."));
try {
  symlinkSync(join(directory, "node_modules"), join(work, "node_modules"));
  const file = join(work, "objects.ts");
  writeFileSync(file, lines.join("\n"));
  const options = {
    noEmit: true, strict: true, skipLibCheck: true, types: [],
    module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext, target: ts.ScriptTarget.ES2022,
  };
  for (const found of ts.getPreEmitDiagnostics(ts.createProgram([file], options))) {
    problems.push(ts.flattenDiagnosticMessageText(found.messageText, "\n"));
  }
} finally {
  rmSync(work, { recursive: true });
}
process.stdout.write(problems.map((problem) => `${problem}\n`).join(""));
process.exit(problems.length ? 1 : 0);
