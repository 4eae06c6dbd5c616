/*
 * Whom the system trusts, as OpenSSL finds it: in /etc/ssl, or where $SSL_CERT_FILE and $SSL_CERT_DIR say.
 *
 * They are more than a hundred certificates, which take some twenty milliseconds to read and a megabyte to keep. So all
 * contexts of the process share one reading of them, which is read again for the first context that is made an hour
 * later: a server that runs for months is to learn of an authority that has come or gone.
 *
 * Threads: any; a lock, which is held while they are read.
 */
#pragma once

#include <openssl/x509.h>

/* A reference to them. NULL: no memory. That there are none is no failure: then nobody is trusted. */
X509_STORE *authorities_of_system(void);
