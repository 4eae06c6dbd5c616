/* perilune run: serve a script. */
#include "base/log.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/load.h"
#include "cli/options.h"
#include "config/sources.h"
#include "restart/notify.h"
#include "restart/variables.h"
#include "server/server.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static void log_unknown(const char *name, const char *near)
{
	log_write(LOG_WARN, "an environment variable is no setting and is ignored", F_TEXT("name", name),
		  F_TEXT("did_you_mean", near));
}

/* Who started us may want to know: in an upgrade, it is the predecessor. */
static void tell_starter(const char *why)
{
	struct notify notify;
	notify_open(&notify);
	notify_failed(&notify, why);
	notify_close(&notify);
}

/* 0, or an exit code after having said why not. */
static int open_log_file(const char *path)
{
	char why[PATH_MAX + 100];
	int err = log_open_file(path);
	if (!err)
		return EXIT_OK;
	snprintf(why, sizeof why, "cannot open the log file %s: %s", path, log_file_error(err));
	text_printf(stderr, "perilune: %s\n", why);
	tell_starter(why);
	return EXIT_FAILED;
}

/* Who expected lines for people is told why there are none. */
static void begin_log(const struct config *config)
{
	enum log_format format = log_init(config->log_format, config->log_level);
	if (config->log_format == LOG_AUTO && format == LOG_JSON)
		log_write(LOG_INFO, "log.format=json, as this is no terminal",
			  F_TEXT("hint", "--log-format=text is for people"));
}

static int cli_run_serve(struct app_load *load, const struct options *options)
{
	log_open();
	if (load->config.log_file && open_log_file(load->config.log_file))
		return EXIT_FAILED;
	begin_log(&load->config);
	environment_unknown(&load->environment, log_unknown);
	config_warn(&load->config);
	if (*load->config.sources->cut)
		log_write(LOG_WARN, "not all of the app's folder was read",
			  F_TEXT("reason", load->config.sources->cut));
	struct server_options how = {
		.watch = options->watch,
		.record = { options->record, options->force, options->max_bytes, 0 },
	};
	return server_run(&load->config, &how);
}

static int cli_run_fail(const struct app_load *load, const struct options *options)
{
	tell_starter(load->text ? load->text : "not enough memory");
	return app_explain(load, options);
}

static int cli_run_run(const struct options *options)
{
	struct app_load load;
	server_expect_signals();
	variables_take(); /* the script is loaded next, and it may open files and start processes */
	app_load(&load, options, NULL);
	int code = load.status == CONFIG_OK ? cli_run_serve(&load, options) : cli_run_fail(&load, options);
	if (!server_is_stuck())
		app_free(&load);
	return code;
}

const struct command command_run = {
	.name = "run",
	.arguments = "[app.lua] [options]",
	.summary = "serve a script until a signal ends it",
	.about = "Serves the script until a signal ends it. Without a file: app.lua in the current folder.",
	.notes =
	    "Signals:\n"
	    "  TERM, INT, QUIT      stop: no new connections, finish what is in flight, then exit\n"
	    "                       (a second one forces)\n"
	    "  HUP                  reload the script: new connections get it, if it can be loaded\n"
	    "                       (stop, if the terminal that it runs in was closed)\n"
	    "  USR1                 open the log file anew, after it was renamed\n"
	    "  USR2                 start the binary anew; leave once it serves\n"
	    "\n"
	    "Exit codes:\n"
	    "  0   stopped, every connection served to its end\n"
	    "  1   failed to start, or connections had to be cut, or what the script printed could not be\n"
	    "      written\n"
	    "  2   wrong usage\n"
	    "  78  bad script or configuration\n"
	    "\n"
	    "Example:\n"
	    "  perilune run echo.lua --listen tcp://127.0.0.1:9000 --workers 2\n",
	.options = FOR_RUN,
	.run = cli_run_run,
};
