/* perilune run: serve a script. */
#include "base/log.h"
#include "cli/cli.h"
#include "cli/load.h"
#include "cli/options.h"
#include "config/sources.h"
#include "restart/notify.h"
#include "server/server.h"

static void log_unknown(const char *name, const char *near)
{
	log_write(LOG_WARN, "an environment variable is no setting and is ignored", F_TEXT("name", name),
		  F_TEXT("did_you_mean", near));
}

static int serve(struct app_load *load, bool watch)
{
	log_open();
	log_init(load->config.log_format, load->config.log_level);
	environment_unknown(&load->environment, log_unknown);
	if (*load->config.sources->cut)
		log_write(LOG_WARN, "not all of the app's folder was read",
			  F_TEXT("reason", load->config.sources->cut));
	return server_run(&load->config, watch);
}

/* Who started us may want to know: in an upgrade, it is the predecessor. */
static int fail(const struct app_load *load, const struct options *options)
{
	struct notify notify;
	notify_open(&notify);
	notify_failed(&notify, load->text ? load->text : "not enough memory");
	notify_close(&notify);
	return app_explain(load, options);
}

static int run(const struct options *options)
{
	struct app_load load;
	app_load(&load, options, NULL);
	int code = load.status == CONFIG_OK ? serve(&load, options->watch) : fail(&load, options);
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
		 "  HUP                  reload the script: new connections get it, if it can be loaded\n"
		 "  USR1                 ignored, with a warning\n"
		 "  USR2                 start the binary anew; leave once it serves\n"
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
