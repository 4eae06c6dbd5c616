#include "cli/options.h"

#include "base/suggest.h"
#include "base/text.h"
#include "cli/cli.h"
#include "config/config.h"
#include "server/server.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum option_kind {
	OPTION_KEY,
	OPTION_SET,
	OPTION_JSON,
	OPTION_PRINT,
	OPTION_WATCH,
	OPTION_HELP,
	OPTION_CONTROL,
	OPTION_REASON,
	OPTION_POLICY,
	OPTION_TEMPLATE,
	OPTION_CODE,
	OPTION_WAIT,
	OPTION_STRICT,
	OPTION_TIMEOUT,
	OPTION_NOW,
	OPTION_RECORD,
	OPTION_LISTENER,
	OPTION_OUT,
	OPTION_SECONDS,
	OPTION_MAX_SIZE,
	OPTION_FORCE
};

struct option {
	const char *name;     /* after the "--" */
	const char *argument; /* what the help calls it; NULL: takes none */
	enum option_kind kind;
	unsigned commands;
	const char *path; /* OPTION_KEY: the key it sets */
	const char *help;
};

static const struct option OPTIONS[] = {
	{ "listen", "ADDR", OPTION_KEY, FOR_RUN | FOR_CHECK, "listen",
	  "listen here, and only here: tcp://HOST:PORT, tls, udp, http(s), ws(s); unix:///PATH" },
	{ "workers", "N", OPTION_KEY, FOR_RUN | FOR_CHECK, "workers",
	  "worker threads (default: the processors available)" },
	{ "drain", "TIME", OPTION_KEY, FOR_RUN | FOR_CHECK, "timeout.drain",
	  "how long a stop may take: 10, 500ms, 5m; 0 is as long as it takes" },
	{ "log-file", "PATH", OPTION_KEY, FOR_RUN | FOR_CHECK, "log.file",
	  "append the log to this file (default: standard error)" },
	{ "log-format", "FORMAT", OPTION_KEY, FOR_RUN | FOR_CHECK, "log.format",
	  "auto, text or json (default auto: text on a terminal)" },
	{ "log-level", "LEVEL", OPTION_KEY, FOR_RUN | FOR_CHECK, "log.level",
	  "debug, info, warn or error (default info)" },
	{ "control", "PATH", OPTION_KEY, FOR_SCRIPTS, "control",
	  "the control socket: a path, auto (the default: perilune/NAME-PID.sock) or off" },
	{ "set", "KEY=VALUE", OPTION_SET, FOR_RUN | FOR_CHECK, NULL,
	  "set any key, as in --set limits.connections=500; repeatable" },
	{ "watch", NULL, OPTION_WATCH, FOR_RUN, NULL, "load the script anew whenever its files change" },
	{ "watch", NULL, OPTION_WATCH, FOR_STATUS, NULL, "tell it again every second, until Ctrl-C" },
	{ "record", "PATH", OPTION_RECORD, FOR_RUN, NULL,
	  "record all connections to this file, for 'perilune replay'; see 'perilune record'" },
	{ "listener", "NAME", OPTION_LISTENER, FOR_RECORD, NULL,
	  "only connections of this listener: its name, address or port (default: all)" },
	{ "out", "PATH", OPTION_OUT, FOR_RECORD, NULL,
	  "the file that it goes to (default trace.jsonl); - is standard output" },
	{ "seconds", "TIME", OPTION_SECONDS, FOR_RECORD, NULL, "stop after this time: 10, 500ms, 5m" },
	{ "max-size", "SIZE", OPTION_MAX_SIZE, FOR_RECORD, NULL,
	  "stop before the file is larger than this (default 64m); 0: any size" },
	{ "max-size", "SIZE", OPTION_MAX_SIZE, FOR_RUN, NULL, "of --record: as 'perilune record' has it" },
	{ "force", NULL, OPTION_FORCE, FOR_RECORD | FOR_RUN, NULL, "overwrite the file that is recorded to" },
	{ "print", NULL, OPTION_PRINT, FOR_CHECK, NULL, "show every value and where it comes from" },
	{ "json", NULL, OPTION_JSON, FOR_CHECK, NULL, "the same, or the errors, as one JSON object" },
	{ "policy", "POLICY", OPTION_POLICY, FOR_RELOAD, NULL,
	  "pin, migrate or drain: for connections of older generations, whatever the script says" },
	{ "wait", NULL, OPTION_WAIT, FOR_RELOAD | FOR_UPGRADE, NULL,
	  "until the outcome is known; the exit code tells it" },
	{ "strict", NULL, OPTION_STRICT, FOR_RELOAD, NULL,
	  "--wait, and fail if connections that were to migrate stay" },
	{ "wait", NULL, OPTION_WAIT, FOR_STOP | FOR_DRAIN, NULL, "until the server has ended" },
	{ "timeout", "TIME", OPTION_TIMEOUT, FOR_RELOAD | FOR_UPGRADE | FOR_STOP | FOR_DRAIN, NULL,
	  "--wait, but no longer than this: 10, 500ms, 5m; what was asked for goes on" },
	{ "now", NULL, OPTION_NOW, FOR_STOP, NULL,
	  "cut the connections instead of finishing what is in flight" },
	{ "reason", "TEXT", OPTION_REASON, FOR_KICK, NULL, "why, for the server's log" },
	{ "json", NULL, OPTION_JSON, FOR_SERVERS, NULL,
	  "print the outcome as one JSON object: the server's answer, or why there is none" },
	{ "control", "SERVER", OPTION_CONTROL, FOR_SERVERS, NULL,
	  "the server that is meant: its name, process id or script, or its control socket's path" },
	{ "template", "TEMPLATE", OPTION_TEMPLATE, FOR_NEW, NULL,
	  "echo (the default), chat, rpc, binary, game, proxy, worker-pool or http" },
	{ "eval", "CODE", OPTION_CODE, FOR_EXEC, NULL,
	  "run this text instead of a file; -e is short for it" },
	{ "help", NULL, OPTION_HELP, FOR_SCRIPTS | FOR_SERVERS | FOR_NEW | FOR_EXEC, NULL, "this text" },
};
/* A unit of amounts, and how many of the smallest one it is. */
struct amount_unit {
	const char *name;
	uint64_t size;
};

enum { OPTION_COUNT = sizeof OPTIONS / sizeof *OPTIONS };

/* The option that an argument such as "--name" or "--name=value" gives, or NULL. */
static const struct option *options_find(unsigned which, const char *given)
{
	const char *name = !strcmp(given, "-h") ? "--help" : !strcmp(given, "-e") ? "--eval" : given;
	if (strncmp(name, "--", 2))
		return NULL;
	name += 2;
	size_t length = strcspn(name, "=");
	for (size_t i = 0; i < OPTION_COUNT; i++)
		if (OPTIONS[i].commands & which && strlen(OPTIONS[i].name) == length &&
		    !memcmp(OPTIONS[i].name, name, length))
			return &OPTIONS[i];
	return NULL;
}

static int options_refuse(const char *command)
{
	text_printf(stderr, "see 'perilune %s --help'\n", command);
	return EXIT_USAGE;
}

/* What other programs call our options; `word` is without dashes. */
static const struct {
	const char *name, *ours, *form;
} SYNONYMS[] = {
	{ "port", "listen", "--listen tcp://127.0.0.1:9000" },
	{ "p", "listen", "--listen tcp://127.0.0.1:9000" },
	{ "host", "listen", "--listen tcp://127.0.0.1:9000" },
	{ "bind", "listen", "--listen tcp://127.0.0.1:9000" },
	{ "addr", "listen", "--listen tcp://127.0.0.1:9000" },
	{ "address", "listen", "--listen tcp://127.0.0.1:9000" },
	{ "socket", "listen", "--listen unix:///run/app.sock" },
	{ "unix", "listen", "--listen unix:///run/app.sock" },
	{ "threads", "workers", NULL },
	{ "processes", "workers", NULL },
	{ "jobs", "workers", NULL },
	{ "j", "workers", NULL },
	{ "w", "workers", NULL },
	{ "log", "log-file", NULL },
	{ "logfile", "log-file", NULL },
	{ "output", "out", NULL },
	{ "o", "out", NULL },
	{ "loglevel", "log-level", NULL },
	{ "v", "log-level", "--log-level debug" },
	{ "verbose", "log-level", "--log-level debug" },
	{ "debug", "log-level", "--log-level debug" },
	{ "quiet", "log-level", "--log-level warn" },
	{ "q", "log-level", "--log-level warn" },
	{ "format", "log-format", NULL },
	{ "reload", "watch", NULL },
	{ "dev", "watch", NULL },
	{ "grace", "drain", NULL },
	{ "grace-period", "drain", NULL },
	{ "option", "set", NULL },
	{ "D", "set", NULL },
	{ "sock", "control", NULL },
	{ "pid", "control", NULL },
	{ "duration", "seconds", NULL },
	{ "limit", "max-size", NULL },
	{ "overwrite", "force", NULL },
	{ "f", "force", NULL },
	{ "now", "force", NULL },
	{ "force", "now", NULL },
	{ "message", "reason", NULL },
	{ "execute", "eval", NULL },
	{ "c", "eval", NULL },
	{ "type", "template", NULL },
	{ "t", "template", NULL },
};

/* As it would be written, or NULL. */
static const char *options_find_synonym(const char *word, unsigned which)
{
	static char form[32];
	for (size_t i = 0; i < sizeof SYNONYMS / sizeof *SYNONYMS; i++) {
		snprintf(form, sizeof form, "--%s", SYNONYMS[i].ours);
		if (!strcmp(SYNONYMS[i].name, word) && options_find(which, form))
			return SYNONYMS[i].form ? SYNONYMS[i].form : form;
	}
	return NULL;
}

/* One that has a key's name is set with --set. */
static int refuse_unknown(const char *command, unsigned which, const char *given)
{
	const char *names[OPTION_COUNT], *near = NULL;
	char word[SUGGEST_WORD_MAX + 2];
	size_t n = 0;
	for (size_t i = 0; i < OPTION_COUNT; i++)
		if (OPTIONS[i].commands & which)
			names[n++] = OPTIONS[i].name;
	const char *bare = given + strspn(given, "-");
	snprintf(word, sizeof word, "%.*s", (int)strcspn(bare, "="), bare);
	near = suggest_nearest(word, names, n);
	const char *synonym = options_find_synonym(word, which);
	text_printf(stderr, "perilune %s: unknown option %.*s", command, (int)strcspn(given, "="), given);
	if (synonym)
		text_printf(stderr, " (did you mean %s?)", synonym);
	else if (near)
		text_printf(stderr, " (did you mean --%s?)", near);
	else if (which & FOR_SCRIPTS && strchr(word, '.'))
		text_printf(stderr, " (did you mean --set %s=…?)", word);
	fputc('\n', stderr);
	return options_refuse(command);
}

static int take_policy(struct options *options, const char *value)
{
	enum reload_policy policy;
	options->policy = value;
	if (reload_policy_of(value, &policy))
		return 0;
	text_printf(stderr, "perilune %s: --policy expects pin, migrate or drain, got '%s'\n",
		    options->command, value);
	return options_refuse(options->command);
}

/* The number in front of `unit`s, in `options`' smallest unit. False: that is none, or too large. */
static bool take_amount(const char *value, const struct amount_unit *units, uint64_t most, uint64_t *amount)
{
	size_t digits = strspn(value, "0123456789");
	for (; digits && digits < 15 && units->name; units++) {
		if (strcmp(units->name, value + digits) != 0)
			continue;
		*amount = strtoull(value, NULL, 10) * units->size;
		return *amount <= most;
	}
	return false;
}

static int refuse_amount(const struct options *options, const char *name, const char *expected,
			 const char *value)
{
	text_printf(stderr, "perilune %s: --%s expects %s, got '%s'\n", options->command, name, expected,
		    value);
	return options_refuse(options->command);
}

static int take_time(const struct options *options, const char *name, const char *value, uint64_t *ms)
{
	static const struct amount_unit UNITS[] = { { "", 1000 },   { "ms", 1 },      { "s", 1000 },
						    { "m", 60000 }, { "h", 3600000 }, { NULL, 0 } };
	enum { MOST_MS = 7 * 86400 * 1000 };
	if (take_amount(value, UNITS, MOST_MS, ms) && *ms)
		return 0;
	return refuse_amount(options, name, "a time such as 10, 500ms or 5m, a week at most", value);
}

static int take_max_size(struct options *options, const char *value)
{
	static const struct amount_unit UNITS[] = {
		{ "", 1 }, { "k", 1 << 10 }, { "m", 1 << 20 }, { "g", 1 << 30 }, { NULL, 0 }
	};
	enum { LEAST_BYTES = 16384 };
	bool ok = take_amount(value, UNITS, UINT64_C(1) << 50, &options->max_bytes);
	if (ok && (!options->max_bytes || options->max_bytes >= LEAST_BYTES))
		return 0;
	return refuse_amount(options, "max-size", "a size such as 64m, 16k at least, or 0", value);
}

static int take_server(struct options *options, const char *server)
{
	if (options->control) {
		text_printf(stderr, "perilune %s: takes one server, got '%s' and '%s'\n", options->command,
			    options->control, server);
		return options_refuse(options->command);
	}
	options->control = server;
	return 0;
}

/* Takes the option's effect. `value` is NULL when it takes none. */
static int options_take(struct options *options, const struct option *option, const char *value)
{
	assert(value || (option->kind != OPTION_SET && option->kind != OPTION_KEY));
	switch (option->kind) {
	case OPTION_SET:
		if (value[0] == '=' || !strchr(value, '=')) {
			text_printf(stderr, "perilune %s: --set expects KEY=VALUE, got '%s'\n",
				    options->command, value);
			return options_refuse(options->command);
		}
		/* fall through */
	case OPTION_KEY:
		options->settings[options->setting_count++] = (struct setting){ option, value };
		break;
	case OPTION_JSON:
		options->json = true;
		break;
	case OPTION_PRINT:
		options->print = true;
		break;
	case OPTION_WATCH:
		options->watch = true;
		break;
	case OPTION_HELP:
		options->help = true;
		break;
	case OPTION_CONTROL:
		return take_server(options, value);
	case OPTION_REASON:
		options->reason = value;
		break;
	case OPTION_POLICY:
		return take_policy(options, value);
	case OPTION_TEMPLATE:
		options->template = value;
		break;
	case OPTION_CODE:
		options->code = value;
		break;
	case OPTION_WAIT:
		options->wait = true;
		break;
	case OPTION_STRICT:
		options->wait = options->strict = true;
		break;
	case OPTION_NOW:
		options->now = true;
		break;
	case OPTION_RECORD:
		options->record = value;
		break;
	case OPTION_LISTENER:
		options->listener = value;
		break;
	case OPTION_OUT:
		options->out = value;
		break;
	case OPTION_SECONDS:
		return take_time(options, "seconds", value, &options->record_ms);
	case OPTION_TIMEOUT:
		options->wait = true;
		return take_time(options, "timeout", value, &options->timeout_ms);
	case OPTION_MAX_SIZE:
		return take_max_size(options, value);
	case OPTION_FORCE:
		options->force = true;
		break;
	}
	return 0;
}

/* An empty value is a variable of the shell's that is not set, but where it is one that somebody may mean. */
static bool may_be_empty(enum option_kind kind)
{
	return kind == OPTION_KEY || kind == OPTION_SET || kind == OPTION_REASON || kind == OPTION_CODE;
}

/* Reads the option argv[*at], and its value where that is the next argument. */
static int parse_option(struct options *options, unsigned which, char **argv, int *at)
{
	const char *given = argv[*at], *command = options->command;
	const struct option *option = options_find(which, given);
	if (!option)
		return refuse_unknown(command, which, given);
	const char *equals = strchr(given, '=');
	const char *value = equals ? equals + 1 : NULL;
	if (!option->argument && value) {
		text_printf(stderr, "perilune %s: --%s takes no value\n", command, option->name);
		return options_refuse(command);
	}
	/* No value begins with "--"; the user has forgotten it. */
	if (option->argument && !value && argv[*at + 1] && strncmp(argv[*at + 1], "--", 2))
		value = argv[++*at];
	if (option->argument && (!value || (!*value && !may_be_empty(option->kind)))) {
		text_printf(stderr, "perilune %s: --%s needs a value: --%s %s\n", command, option->name,
			    option->name, option->argument);
		return options_refuse(command);
	}
	return options_take(options, option, value);
}

static int take_script(struct options *options, const char *script)
{
	if (options->script_named) {
		text_printf(stderr, "perilune %s: takes one script, got '%s' and '%s'\n", options->command,
			    options->script, script);
		return options_refuse(options->command);
	}
	options->script = script;
	options->script_named = true;
	return 0;
}

/* What the command's argument is, for a message. */
static const char *operand_of(unsigned which)
{
	if (which & FOR_SCRIPTS || which == FOR_EXEC)
		return "script";
	return which == FOR_KICK ? "id" : which == FOR_NEW ? "name" : "server";
}

/* A script's "$NAME" where that is not set: what would be taken instead is not what was meant. */
static int refuse_empty(const char *command, unsigned which)
{
	text_printf(stderr, "perilune %s: the %s is empty\n", command, operand_of(which));
	return options_refuse(command);
}

static int take_operand(struct options *options, unsigned which, const char *operand)
{
	if (!*operand && which != FOR_KICK) /* which says what an id is */
		return refuse_empty(options->command, which);
	if (which & FOR_SCRIPTS)
		return take_script(options, operand);
	if (which != FOR_KICK && which != FOR_NEW)
		return take_server(options, operand);
	if (options->operand) {
		text_printf(stderr, "perilune %s: takes one %s, got '%s' and '%s'\n", options->command,
			    operand_of(which), options->operand, operand);
		return options_refuse(options->command);
	}
	options->operand = operand;
	return 0;
}

/* A file that is run, and what is for it: argv[at] on. With --eval all of it is for the text. */
static void take_rest(struct options *options, char **argv, int at)
{
	if (!options->code)
		options->operand = argv[at++];
	options->rest = argv + at;
}

int options_parse(struct options *options, const char *command, unsigned which, int argc, char **argv)
{
	*options = (struct options){
		.command = command, .script = "app.lua", .rest = argv + argc, .max_bytes = RECORD_MAX_BYTES
	};
	options->settings = calloc((size_t)argc + 1, sizeof *options->settings);
	if (!options->settings) {
		fprintf(stderr, "perilune: not enough memory\n");
		return EXIT_FAILED;
	}
	bool only_names = false;
	int code = 0;
	for (int at = 1; at < argc && !code && !options->help; at++) {
		bool is_option = !only_names && argv[at][0] == '-' && argv[at][1];
		if (which == FOR_EXEC && !is_option && !options->code && !*argv[at]) {
			code = refuse_empty(command, which);
			break;
		}
		if (which == FOR_EXEC && !is_option) {
			take_rest(options, argv, at);
			break;
		}
		if (!only_names && !strcmp(argv[at], "--"))
			only_names = true;
		else if (is_option)
			code = parse_option(options, which, argv, &at);
		else
			code = take_operand(options, which, argv[at]);
	}
	if (!code && options->json && options->print) {
		text_printf(stderr, "perilune %s: --json and --print exclude each other\n", command);
		code = options_refuse(command);
	}
	return code;
}

void options_free(struct options *options)
{
	free(options->settings);
	options->settings = NULL;
}

static int apply_set(const struct setting *setting, struct config *config)
{
	const char *value = strchr(setting->value, '=') + 1;
	char *path = strndup(setting->value, (size_t)(value - 1 - setting->value));
	if (!path)
		return UV_ENOMEM;
	char origin[128];
	snprintf(origin, sizeof origin, "flag --set %s", path);
	int err = config_add_override(config, path, value, origin);
	free(path);
	return err;
}

static int apply_key(const struct setting *setting, struct config *config)
{
	char origin[64];
	snprintf(origin, sizeof origin, "flag --%s", setting->option->name);
	return config_add_override(config, setting->option->path, setting->value, origin);
}

int options_apply(const struct options *options, struct config *config)
{
	int err = 0;
	for (size_t i = 0; i < options->setting_count && !err; i++) {
		const struct setting *setting = &options->settings[i];
		err = setting->option->kind == OPTION_SET ? apply_set(setting, config)
							  : apply_key(setting, config);
	}
	return err;
}

void options_print(unsigned which)
{
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		const struct option *option = &OPTIONS[i];
		if (!(option->commands & which))
			continue;
		char form[48];
		snprintf(form, sizeof form, "--%s %s", option->name,
			 option->argument ? option->argument : "");
		printf("  %-20s %s\n", form, option->help);
	}
}
