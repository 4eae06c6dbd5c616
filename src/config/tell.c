/* What is allowed in a script and hardly meant: for people, and for the log. */
#include "base/log.h"
#include "config/config.h"
#include "tls/settings.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static void tell_lines(const char *text, void (*tell)(const char *text))
{
	char *lines = text ? strdup(text) : NULL, *rest;
	if (!lines)
		return;
	for (char *line = strtok_r(lines, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		tell(line);
	free(lines);
}

void config_tell_globals(const struct config *config, void (*tell)(const char *text))
{
	tell_lines(config->globals, tell);
}

void config_tell_warnings(const struct config *config, void (*tell)(const char *text))
{
	tell_lines(config->warnings, tell);
	tell_lines(config->tls_warnings, tell);
}

static void tell_certificate(void *data, const char *text)
{
	void (*const *tell)(const char *text) = data;
	(*tell)(text);
}

void config_tell_certificates(const struct config *config, void (*tell)(const char *text))
{
	for (unsigned i = 0; i < config->listener_count; i++)
		if (config->listeners[i].tls)
			tls_settings_describe(config->listeners[i].tls, (int64_t)time(NULL), tell_certificate,
					      &tell);
}

void config_tell_shared(const struct config *config, void (*tell)(const char *text))
{
	tell_lines(config->shared_tables, tell);
}

static void warn_of_script(const char *text)
{
	log_write(LOG_WARN, "the script has what is hardly meant", F_TEXT("error", text));
}

static void warn_of_certificate(const char *text)
{
	log_write(LOG_WARN, "a certificate or its key needs attention", F_TEXT("error", text));
}

static void warn_of_global(const char *text)
{
	log_write(LOG_WARN, "the script uses a global that is not defined", F_TEXT("error", text));
}

void config_warn(const struct config *config)
{
	if (config->strays)
		log_write(LOG_WARN, "the agent has methods that nothing calls",
			  F_TEXT("methods", config->strays));
	config_tell_globals(config, warn_of_global);
	tell_lines(config->warnings, warn_of_script);
	tell_lines(config->tls_warnings, warn_of_certificate);
}
