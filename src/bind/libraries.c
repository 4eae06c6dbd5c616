/* The list of the libraries that are modules: what Perilune's own Lua can require of the C side. */
#include "bind/bind.h"

const struct vm_library BIND_LIBRARIES[] = {
	{ "perilune.compile_core", bind_compile },
	{ "perilune.files_core", bind_files },
	{ "perilune.logging", bind_logging },
	{ "perilune.packing", bind_pack },
	{ "perilune.patterns", bind_strings },
	{ "perilune.paths", bind_paths },
	{ NULL, NULL },
};
