/* Certificates for tests in C. */
#pragma once

#include "tls/settings.h"

/* A server's settings with a certificate that signs itself, of a key of its own. */
struct tls_settings *pem_settings(void);
