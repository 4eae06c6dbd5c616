/*
 * The keys of session tickets (RFC 5077, and RFC 8446 4.6.1): a client that comes back with a ticket resumes its
 * session at whichever worker, whatever generation of the script serves.
 *
 * Tickets are made with the newest key and taken with the one before as well. A new key comes every twelve hours, so a
 * ticket is good for that long, and its key is gone after a day.
 *
 * Threads: any; a short lock.
 */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>

/* From here on the context's tickets are made with these keys. */
void tickets_use(SSL_CTX *context);

/* What hands them to another process, as text. */
enum { TICKETS_TEXT_BYTES = 2 * (8 + 2 * (16 + 32 + 32)) + 1 };

/* False: there are none yet. */
bool tickets_save(char text[TICKETS_TEXT_BYTES]);

/* Goes on with those that another process has saved. False: they are none. */
bool tickets_load(const char *text);
