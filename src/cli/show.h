/* The answers of a server, for people. What is missing in an answer is left out or 0. */
#pragma once

#include <jansson.h>

void show_status(const json_t *reply);
void show_generations(const json_t *reply);
