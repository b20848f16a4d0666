// A connection to the service: stubs made from the .proto files as they are, calls as promises.
"use strict";

const grpc = require("@grpc/grpc-js");
const health = require("grpc-health-check");
const loader = require("@grpc/proto-loader");

const SERVICES = ["Blobs", "Images", "Volumes", "Store", "Vault"];
const DETAILS = "grpc-status-details-bin";

function load(files, includeDirs) {
  const options = { defaults: true, enums: String, longs: Number, oneofs: true, includeDirs };
  return loader.loadSync(files, options);
}

// socket: where the service listens; protos: the directories of cas/v1 and of google/rpc.
function connect({ socket, protos }) {
  const definition = load(SERVICES.map((name) => `cas/v1/${name.toLowerCase()}.proto`), protos);
  const { cas } = grpc.loadPackageDefinition(definition);
  const Health = grpc.makeGenericClientConstructor(health.service, "Health");
  const credentials = grpc.credentials.createInsecure();
  const open = (Stub) => new Stub(`unix:${socket}`, credentials);
  const snapshots = open(cas.v1.VolumeSnapshots); // beside the volumes, in the same file
  const stubs = SERVICES.map((name) => [name.toLowerCase(), open(cas.v1[name])]);
  return { ...Object.fromEntries(stubs), snapshots, health: open(Health), address: `unix:${socket}` };
}

// One request, one response.
function ask(stub, method, request, options = {}) {
  return new Promise((resolve, reject) => {
    stub[method](request, options, (error, response) =>
      error ? reject(error) : resolve(response));
  });
}

// One request, all messages of the stream that answers it.
async function collect(stream) {
  const messages = [];
  for await (const message of stream) messages.push(message);
  return messages;
}

// A stream of requests, one response; gives the stream and a promise of the response.
function upload(stub, metadata = new grpc.Metadata(), options = {}) {
  let stream;
  const answer = new Promise((resolve, reject) => {
    stream = stub.upload(metadata, options, (error, response) =>
      error ? reject(error) : resolve(response));
  });
  return { stream, answer };
}

// Waits until a message is under way.
function write(stream, message) {
  return new Promise((resolve, reject) => {
    stream.write(message, (error) => (error ? reject(error) : resolve()));
  });
}

// A failed call as a JSON value, with the google.rpc.ErrorInfo that it carries.
function described(error, protos) {
  if (!(error.code in grpc.status) || !error.metadata) throw error;
  const rpc = load(["google/rpc/status.proto", "google/rpc/error_details.proto"], protos);
  const details = error.metadata.get(DETAILS).flatMap(
    (bytes) => rpc["google.rpc.Status"].deserialize(bytes).details);
  const infos = details
    .filter((detail) => detail.type_url === "type.googleapis.com/google.rpc.ErrorInfo")
    .map((detail) => rpc["google.rpc.ErrorInfo"].deserialize(detail.value));
  return { code: grpc.status[error.code], message: error.details, infos };
}

module.exports = { ask, collect, connect, described, grpc, upload, write };
