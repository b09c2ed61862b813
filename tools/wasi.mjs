// Runs a WebAssembly program (WASI preview 1) that may read one folder.
//
// usage: node tools/wasi.mjs FOLDER PROGRAM [ARGUMENTS...]
import { readFileSync } from 'node:fs';
import { WASI } from 'node:wasi';

const [folder, program, ...rest] = process.argv.slice(2);
const wasi = new WASI({ version: 'preview1', args: [program, ...rest], env: process.env, preopens: { [folder]: folder } });
const { instance } = await WebAssembly.instantiate(readFileSync(program), wasi.getImportObject());
process.exitCode = wasi.start(instance);
