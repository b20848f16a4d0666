// Makes the calls of one case and prints what came of them as JSON.
//
// usage: node client.js CASE '{"socket": PATH, "protos": [DIRECTORY, DIRECTORY], ...}'
"use strict";

const cases = require("./cases");
const { connect, described } = require("./connection");

async function main([name, text]) {
  const given = JSON.parse(text);
  const service = connect(given);
  try {
    return { result: await cases[name](service, given) };
  } catch (error) {
    return { error: described(error, given.protos) };
  }
}

main(process.argv.slice(2)).then((outcome) => {
  process.stdout.write(`${JSON.stringify(outcome)}\n`, () => process.exit(0));
});
