#include "bind/bind.h"

const struct vm_library BIND_LIBRARIES[] = {
	{ "perilune.patterns", bind_strings },
	{ "perilune.paths", bind_paths },
	{ NULL, NULL },
};
