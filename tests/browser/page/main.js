// The cases that run in the browser. Each is a call of a client that is not ours; the results go
// to the page's own server.

import { create, createFileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import grpcWeb from "grpc-web";

const config = await (await fetch("/config.json")).json();
const bytes = Uint8Array.from(atob(config.files), (c) => c.charCodeAt(0));
const service = createFileRegistry(fromBinary(FileDescriptorSetSchema, bytes)).getService("browser.v1.Pages");
const Line = service.method.echo.input;

function equal(got, want, what) {
  if (JSON.stringify(got) !== JSON.stringify(want)) {
    throw new Error(`${what}: got ${JSON.stringify(got)}, want ${JSON.stringify(want)}`);
  }
}

async function failure(call) {
  try {
    await call();
  } catch (e) {
    return e;
  }
  throw new Error("the call succeeded");
}

const refusal = "100 % zu spät";

const cases = {};

for (const [name, create] of Object.entries({
  "connect-web, Connect with JSON": (baseUrl) => createConnectTransport({ baseUrl }),
  "connect-web, Connect in binary": (baseUrl) => createConnectTransport({ baseUrl, useBinaryFormat: true }),
  "connect-web, Connect with GET": (baseUrl) => createConnectTransport({ baseUrl, useHttpGet: true }),
  "connect-web, gRPC-Web": (baseUrl) => createGrpcWebTransport({ baseUrl }),
  "connect-web, gRPC-Web with JSON": (baseUrl) => createGrpcWebTransport({ baseUrl, useBinaryFormat: false }),
})) {
  const client = createClient(service, create(config.gateway));
  cases[`${name}: a call`] = async () => {
    let header;
    const reply = await client.echo({ text: "ü" }, {
      headers: { authorization: "Bearer x", "x-own": "1" }, onHeader: (h) => { header = h; },
    });
    equal(reply.text, "ü", "reply");
    equal(header.get("millrace-token"), "token", "token");
    equal((await client.look({ text: "b" })).text, "b", "a call without side effects");
  };
  cases[`${name}: an error`] = async () => {
    const e = ConnectError.from(await failure(() => client.refuse({ text: "a" })));
    equal([Code[e.code], e.rawMessage], ["FailedPrecondition", refusal], "error");
    equal(e.metadata.get("millrace-outcome"), "refused", "outcome");
  };
  cases[`${name}: an error with details`] = async () => {
    const e = ConnectError.from(await failure(() => client.busy({ text: "a" })));
    equal([Code[e.code], e.details.map((d) => d.type)], ["ResourceExhausted", ["google.rpc.RetryInfo"]], "error");
  };
  cases[`${name}: a stream`] = async () => {
    const got = [];
    let trailer;
    for await (const line of client.count({ text: "3" }, { onTrailer: (t) => { trailer = t; } })) {
      got.push(line.text);
    }
    equal(got, ["1", "2", "3"], "messages");
    equal(trailer.get("millrace-token"), "token", "token");
  };
  cases[`${name}: a stream that fails after a message`] = async () => {
    const got = [];
    const e = ConnectError.from(await failure(async () => {
      for await (const line of client.fail({ text: "a" })) {
        got.push(line.text);
      }
    }));
    equal([got, Code[e.code], e.rawMessage], [["a"], "FailedPrecondition", refusal], "messages and error");
    equal(e.metadata.get("millrace-outcome"), "refused", "outcome");
  };
  cases[`${name}: a deadline`] = async () => {
    const e = ConnectError.from(await failure(() => client.wait({ text: "a" }, { timeoutMs: 300 })));
    equal(Code[e.code], "DeadlineExceeded", "code");
  };
  cases[`${name}: an origin that is not allowed`] = async () => {
    const e = ConnectError.from(await failure(() => createClient(service, create(config.refused)).echo({ text: "a" })));
    equal(e.rawMessage, "Failed to fetch", "message");
  };
}

for (const format of ["text", "binary"]) {
  const client = new grpcWeb.GrpcWebClientBase({ format });
  const method = (m) => new grpcWeb.MethodDescriptor(
    `/${service.typeName}/${m.name}`, m.methodKind === "unary" ? grpcWeb.MethodType.UNARY : grpcWeb.MethodType.SERVER_STREAMING,
    Object, Object, (line) => toBinary(Line, create(Line, line)), (b) => fromBinary(Line, b));
  const unary = (m, request, metadata = {}, at = config.gateway) => new Promise((resolve) => {
    let head;
    const call = client.rpcCall(`${at}/${service.typeName}/${m.name}`, request, metadata, method(m), (error, reply) => {
      setTimeout(() => resolve({ error, reply, head }), 0); // the metadata comes after the reply
    });
    call.on("metadata", (md) => { head = md; });
  });
  const stream = (m, request) => new Promise((resolve) => {
    const got = { messages: [], error: null, status: null };
    const call = client.serverStreaming(`${config.gateway}/${service.typeName}/${m.name}`, request, {}, method(m));
    call.on("data", (line) => got.messages.push(line.text));
    call.on("error", (error) => { got.error = error; setTimeout(() => resolve(got), 0); });
    call.on("status", (status) => { got.status = status; });
    call.on("end", () => setTimeout(() => resolve(got), 0));
  });
  const name = `grpc-web, ${format}`;
  cases[`${name}: a call`] = async () => {
    const { error, reply, head } = await unary(service.method.echo, { text: "ü" }, { "x-own": "1", authorization: "Bearer x" });
    equal([error, reply?.text], [null, "ü"], "reply");
    equal(head["millrace-token"], "token", "token");
  };
  cases[`${name}: an error`] = async () => {
    const { error } = await unary(service.method.refuse, { text: "a" });
    equal([error?.code, error?.message], [9, refusal], "error");
    equal(error.metadata["millrace-outcome"], "refused", "outcome");
  };
  cases[`${name}: a stream`] = async () => {
    const { messages, error, status } = await stream(service.method.count, { text: "3" });
    equal([messages, error, status?.code], [["1", "2", "3"], null, 0], "messages and status");
  };
  cases[`${name}: a stream that fails after a message`] = async () => {
    const { messages, error } = await stream(service.method.fail, { text: "a" });
    equal([messages, error?.code, error?.message], [["a"], 9, refusal], "messages and error");
  };
  cases[`${name}: a deadline`] = async () => {
    const { error } = await unary(service.method.wait, { text: "a" }, { deadline: String(Date.now() + 300) });
    equal(error?.code, 4, "code");
  };
  cases[`${name}: an origin that is not allowed`] = async () => {
    const { error } = await unary(service.method.echo, { text: "a" }, {}, config.refused);
    equal([error?.code, error?.message], [2, "Http response at 400 or 500 level, http status code: 0"], "error");
  };
}

// HTTP/JSON, without a library.
cases["fetch: JSON, with headers and credentials"] = async () => {
  const reply = await fetch(`${config.gateway}/browser.v1.Pages/Echo`, {
    method: "POST", body: `{"text":"a"}`, credentials: "include",
    headers: { "content-type": "application/json", "idempotency-key": "k" },
  });
  equal([reply.status, await reply.json(), reply.headers.get("millrace-token")], [200, { text: "a" }, "token"], "reply");
};
cases["fetch: a JSON error"] = async () => {
  const reply = await fetch(`${config.gateway}/browser.v1.Pages/Refuse`, {
    method: "POST", body: `{}`, headers: { "content-type": "application/json" },
  });
  equal([reply.status, (await reply.json()).message, reply.headers.get("millrace-outcome")], [400, refusal, "refused"], "error");
};

const results = await Promise.all(Object.entries(cases).map(async ([name, run]) => {
  try {
    await run();
    return { name, error: "" };
  } catch (e) {
    return { name, error: String(e) };
  }
}));
await fetch("/results", { method: "POST", body: JSON.stringify(results) });
