// One function per case: given the service and the test's values, it gives what the test compares.
"use strict";

const { createHash, randomUUID } = require("node:crypto");
const { createReadStream, createWriteStream } = require("node:fs");
const reflection = require("grpc-reflection-js");
const { ask, collect, grpc, upload, write } = require("./connection");

const PIECE = 256 * 1024;

const last = (messages) => messages[messages.length - 1];
const progressOf = (messages) => messages.map((each) => each.progress).filter(Boolean);
const soon = (milliseconds) => ({ deadline: Date.now() + milliseconds });

exports.version = ({ store }) => ask(store, "version", {});

exports.vaults = async ({ vault }) => (await ask(vault, "status", {})).vaults;

exports.getBlob = ({ blobs }, { digest }) => ask(blobs, "get", { digest });

exports.ingest = async ({ blobs }, { path, digest }) => {
  const steps = await collect(blobs.ingest({ path, digest }));
  return { progress: progressOf(steps), ingested: last(steps).ingested };
};

exports.list = async ({ blobs }) => {
  const answers = await collect(blobs.list({}));
  return answers.flatMap((answer) => answer.blobs.map((blob) => blob.digest));
};

exports.read = async ({ blobs }, { digest, offset, length }) => {
  const hash = createHash("sha256");
  let size = 0;
  for await (const { data } of blobs.read({ digest, offset, length })) {
    hash.update(data);
    size += data.length;
  }
  return { size, digest: `sha256:${hash.digest("hex")}` };
};

async function sendFile(stub, path, header) {
  const { stream, answer } = upload(stub);
  answer.catch(() => {}); // awaited below, once everything is sent
  await write(stream, { header });
  for await (const data of createReadStream(path, { highWaterMark: PIECE })) {
    await write(stream, { data });
  }
  stream.end({ end: {} });
  return answer;
}

exports.uploadBlob = ({ blobs }, { path, digest }) =>
  sendFile(blobs, path, { name: path, digest, mediaType: "application/x-node" });

exports.uploadImage = ({ images }, { path, name }) => sendFile(images, path, { name });

exports.endUploadHalfWay = async ({ blobs }, { path, digest }) => {
  const { stream, answer } = upload(blobs);
  stream.write({ header: { digest } });
  stream.write({ data: Buffer.from("not everything") });
  stream.end();
  return answer;
};

exports.exportImage = async ({ images }, { name, path }) => {
  const file = createWriteStream(path);
  for await (const { data } of images.export({ name })) await write(file, data);
  await new Promise((resolve) => file.end(resolve));
};

exports.prepare = async ({ volumes }, { name, image }) => {
  const steps = await collect(volumes.prepare({ name, image, activate: true }));
  return { progress: progressOf(steps), volume: last(steps).volume };
};

exports.prepareDisk = async ({ volumes }, request) =>
  last(await collect(volumes.prepareDisk(request))).volume;

exports.takeSnapshots = async ({ snapshots }, request) =>
  (await ask(snapshots, "create", request)).snapshots;

exports.listSnapshots = async ({ snapshots }, { volume }) => {
  const answers = await collect(snapshots.list({ volume }));
  return answers.flatMap((answer) => answer.snapshots);
};

exports.rollBack = async ({ snapshots }, request) =>
  (await ask(snapshots, "rollBack", request)).snapshots;

exports.removeSnapshot = async ({ snapshots }, request) =>
  (await ask(snapshots, "remove", request)).removed;

exports.prepareTogether = async ({ volumes }, { name, image, callers }) => {
  const calls = Array.from({ length: callers }, () => collect(volumes.prepare({ name, image })));
  return (await Promise.all(calls)).map((steps) => last(steps).volume.name);
};

exports.removeBlobs = async ({ blobs }, { digests }) => collect(blobs.remove({ digests }));

exports.deadline = async ({ blobs }) => {
  const { stream, answer } = upload(blobs, new grpc.Metadata(), soon(300));
  stream.write({ header: { name: "never ends" } });
  stream.write({ data: Buffer.alloc(PIECE) });
  return answer;
};

exports.cancelRead = async ({ blobs }, { digest }) => {
  const stream = blobs.read({ digest });
  for await (const _chunk of stream) stream.cancel();
};

// The service tells when a cancelled call is undone.
exports.cancelUpload = async ({ blobs, store }, { digest }) => {
  const call = randomUUID();
  const metadata = new grpc.Metadata();
  metadata.set("cas-call", call);
  const { stream, answer } = upload(blobs, metadata);
  const code = answer.catch((error) => grpc.status[error.code]);
  await write(stream, { header: { digest } });
  await write(stream, { data: Buffer.alloc(PIECE) });
  stream.cancel();
  await ask(store, "wait", { call });
  return code;
};

// Never ends by itself: the test kills this process.
exports.vanish = async ({ blobs }, { digest }) => {
  const { stream, answer } = upload(blobs);
  await write(stream, { header: { digest } });
  await write(stream, { data: Buffer.alloc(PIECE) });
  process.stdout.write("sending\n");
  return answer;
};

exports.events = async ({ images, store }, { name, newName }) => {
  const stream = store.events({ kinds: ["image-created"] });
  const heard = [];
  try {
    for await (const { kind, object } of stream) {
      heard.push([kind, object]);
      if (heard.length === 1) await ask(images, "tag", { name, newName });
      else stream.cancel();
    }
  } catch (error) {
    if (error.code !== grpc.status.CANCELLED) throw error;
  }
  return heard;
};

exports.health = async ({ health }, { services }) => {
  const answers = await Promise.all(services.map((service) => ask(health, "check", { service })));
  return answers.map(({ status }) => status);
};

exports.reflection = async ({ address }) => {
  const client = new reflection.Client(address, grpc.credentials.createInsecure());
  const services = await client.listServices();
  const methods = {};
  for (const name of services.filter((each) => each.startsWith("cas."))) {
    const root = await client.fileContainingSymbol(name);
    methods[name] = Object.keys(root.lookupService(name).methods);
  }
  return { services, methods };
};
