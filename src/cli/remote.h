/*
 * A running server, as its operator reaches it: over the control socket that is named, or the only one there is.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

struct options;

/*
 * Asks, and waits for the answer; `patient`: however long that takes, or as long as
 * --timeout says. The request is taken. *reply is to be given to
 * json_decref(). 0, or an exit code after having said what is wrong.
 */
int remote_ask(const struct options *options, json_t *request, bool patient, json_t **reply);

/* Tells why it could not be done, with --json as an answer of the same form as a server's. Returns EXIT_FAILED. */
int remote_refuse(const struct options *options, const char *code, const char *why);

/* Prints an answer as one line of JSON. */
void remote_print_json(const struct options *options, const json_t *reply);

/* A descriptor that is connected to the server that is meant (it blocks), or negative: explained. */
int remote_reach(const struct options *options);

/* Sends all of a text. 0 or an error. */
int remote_send(int fd, const char *text);
