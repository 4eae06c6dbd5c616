/* perilune run: serve a script. */
#include "base/log.h"
#include "cli/cli.h"
#include "cli/load.h"
#include "cli/options.h"
#include "server/server.h"

static void log_unknown(const char *name, const char *near)
{
	log_write(LOG_WARN, "an environment variable is no setting and is ignored", F_TEXT("name", name),
		  F_TEXT("did_you_mean", near));
}

static int serve(struct app_load *load)
{
	log_open();
	log_init(load->config.log_format, load->config.log_level);
	environment_unknown(&load->environment, log_unknown);
	return server_run(&load->config);
}

static int run(const struct options *options)
{
	struct app_load load;
	app_load(&load, options, NULL);
	int code = load.status == CONFIG_OK ? serve(&load) : app_explain(&load, options);
	if (!server_is_stuck())
		app_free(&load);
	return code;
}

const struct command command_run = {
	.name = "run",
	.arguments = "[app.lua] [options]",
	.summary = "serve a script until a signal ends it",
	.about = "Serves the script until a signal ends it. Without a file: app.lua in the current folder.",
	.notes = "Signals:\n"
		 "  TERM, INT, QUIT      stop: no new connections, finish what is in flight, then exit\n"
		 "                       (a second one forces)\n"
		 "  HUP, USR1, USR2      ignored, with a warning\n"
		 "\n"
		 "Exit codes:\n"
		 "  0   stopped, every connection served to its end\n"
		 "  1   failed to start, or connections had to be cut\n"
		 "  2   wrong usage\n"
		 "  78  bad script or configuration\n"
		 "\n"
		 "Example:\n"
		 "  perilune run echo.lua --listen tcp://127.0.0.1:9000 --workers 2\n",
	.options = FOR_RUN,
	.run = run,
};
