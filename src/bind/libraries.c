/* The list of the libraries that are modules: what Perilune's own Lua can require of the C side. */
#include "bind/bind.h"

const struct vm_library BIND_LIBRARIES[] = {
	{ "perilune.compile_core", bind_compile, false }, { "perilune.crc_core", bind_crc, true },
	{ "perilune.crypto_core", bind_crypto, true },    { "perilune.deflate_core", bind_deflate, true },
	{ "perilune.drivers_core", bind_drivers, true },  { "perilune.encoding_core", bind_encoding, true },
	{ "perilune.files_core", bind_files, false },     { "perilune.http_core", bind_http, true },
	{ "perilune.json_core", bind_json, true },        { "perilune.logging", bind_logging, false },
	{ "perilune.packing", bind_pack, false },         { "perilune.paths", bind_paths, false },
	{ "perilune.patterns", bind_strings, false },     { NULL, NULL, false },
};
