// Runs a Node.js action inside its own process.
//
// Standard input is a socket to the proxy. A request is one line "<number> <verb> <JSON>", an answer one line
// "<number> <HTTP status> <JSON>". Several activations may run at once; answers carry the number of their request.
'use strict';

const fs = require('fs');
const net = require('net');
const path = require('path');
const vm = require('vm');
const { createRequire } = require('module');
const { Readable } = require('stream');
const { pathToFileURL } = require('url');

const link = new net.Socket({ fd: 0, readable: true, writable: true });
// User code that reads standard input sees its end, not the proxy's requests.
Object.defineProperty(process, 'stdin', { configurable: true, get: () => Readable.from([]) });

let handler;

function answer(number, status, body) {
  link.write(`${number} ${status} ${JSON.stringify(body)}\n`);
}

function isIdentifier(name) {
  return /^[\p{ID_Start}$_][\p{ID_Continue}$\u200c\u200d]*$/u.test(name);
}

// Source text is the body of a function, so that it can use `require` and `exports` and stays out of global scope.
function loadSource(file, main) {
  const module = { exports: {} };
  const pick = isIdentifier(main) ? `typeof ${main} === 'undefined' ? undefined : ${main}` : 'undefined';
  const code = `${fs.readFileSync(file, 'utf8')}\n;return (${pick});`;
  const parameters = ['exports', 'require', 'module', '__filename', '__dirname'];
  const compiled = vm.compileFunction(code, parameters, { filename: file });
  const found = compiled(module.exports, createRequire(file), module, file, path.dirname(file));
  return found ?? member(module.exports, main);
}

function member(holder, name) {
  return name.split('.').reduce((value, part) => (value === undefined || value === null ? value : value[part]), holder);
}

async function loadModule(file) {
  try {
    return createRequire(path.join(path.dirname(file), 'launcher.js'))(file);
  } catch (error) {
    if (error.code !== 'ERR_REQUIRE_ESM') throw error;
    return import(pathToFileURL(file).href);
  }
}

// `main` of the form `file.function` names a file of the package, otherwise package.json or index.js does.
async function loadPackage(directory, main) {
  const dot = main.indexOf('.');
  if (dot > 0) {
    const file = createRequire(path.join(directory, 'launcher.js')).resolve('./' + main.slice(0, dot));
    return member(await loadModule(file), main.slice(dot + 1));
  }
  const named = fs.existsSync(path.join(directory, 'package.json')) || fs.existsSync(path.join(directory, 'index.js'));
  if (!named) throw new Error('Zipped actions must contain either package.json or index.js at the root.');
  const file = createRequire(path.join(directory, 'launcher.js')).resolve('.' + path.sep);
  const loaded = await loadModule(file);
  return member(loaded, main) ?? (loaded.default && member(loaded.default, main));
}

async function init({ env, directory, file, main }) {
  Object.assign(process.env, env);
  process.chdir(directory);
  try {
    const found = file ? loadSource(file, main) : await loadPackage(directory, main);
    if (typeof found !== 'function') throw new Error(`Action entrypoint '${main}' is not a function.`);
    handler = found;
    return [200, { OK: true }];
  } catch (error) {
    const text = String((error && error.stack) || error);
    console.error('Error during initialization:', text);
    return [502, { error: `Initialization has failed due to: ${text}` }];
  }
}

function serialised(error) {
  if (error === undefined || error === null) return {};
  if (!(error instanceof Error)) return error;
  return { ...error, name: error.name, message: error.message, stack: error.stack };
}

async function run(request) {
  for (const [key, value] of Object.entries(request)) {
    if (key !== 'value') process.env['__OW_' + key.toUpperCase()] = String(value ?? '');
  }
  let pending;
  try {
    pending = handler(request.value ?? {});
  } catch (error) {
    console.error(error);
    return [502, { error: `An error has occurred: ${error}` }];
  }
  try {
    const returned = await pending;
    const result = returned === undefined ? {} : returned;
    if (typeof result !== 'object') {
      console.error(`Result must be of type dictionary but has type '${typeof result}':`, result);
      return [502, { error: 'The action did not return a dictionary.' }];
    }
    JSON.stringify(result);
    return [200, result];
  } catch (error) {
    console.error(error);
    return [200, { error: serialised(error) }];
  }
}

async function serve(line) {
  const first = line.indexOf(' ');
  const second = line.indexOf(' ', first + 1);
  const request = JSON.parse(line.slice(second + 1));
  const [status, body] = await (line.slice(first + 1, second) === 'run' ? run(request) : init(request));
  answer(line.slice(0, first), status, body);
}

let parts = [];
link.on('data', (data) => {
  let rest = data;
  for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
    parts.push(rest.subarray(0, end));
    serve(Buffer.concat(parts).toString('utf8'));
    parts = [];
    rest = rest.subarray(end + 1);
  }
  if (rest.length > 0) parts.push(rest);
});
link.on('end', () => process.exit(0));
link.on('error', () => process.exit(0));
