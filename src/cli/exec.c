/* perilune exec: run a Lua file that may wait. */
#include "exec/exec.h"

#include "cli/cli.h"
#include "cli/options.h"
#include "server/server.h"

#include <stdio.h>

static int exec(const struct options *options)
{
	const struct exec_options what = { options->operand, options->code, options->rest };
	if (what.file || what.code)
		return exec_run(&what);
	fprintf(stderr, "perilune exec: expects a Lua file, as in 'perilune exec tool.lua', or a text: "
			"perilune exec -e 'print(1)'\n"
			"see 'perilune exec --help'\n");
	return EXIT_USAGE;
}

const struct command command_exec = {
	.name = "exec",
	.arguments = "[options] FILE | -e CODE [arguments]",
	.summary = "run a Lua file that may wait, without listening",
	.about = "Runs a Lua file to its end, or a text. It may wait: perilune.sleep(\"1s\"). It is yours, "
		 "so that it has all\n"
		 "of LuaJIT's libraries, no budget and no sandbox. What follows the file is in `arg` and "
		 "`...`; the file -\n"
		 "is standard input. Modules are looked for beside the file, then on the system.",
	.notes = "Exit codes:\n"
		 "  0        it came to its end\n"
		 "  1        it failed, and standard error tells where\n"
		 "  2        wrong usage\n"
		 "  128 + N  signal N ended it (130: Ctrl-C)\n"
		 "  others   what it gave to os.exit()\n"
		 "\n"
		 "Example:\n"
		 "  perilune exec -e 'local p = require \"perilune\" p.sleep(1) print(p.now())'\n",
	.options = FOR_EXEC,
	.run = exec,
};
