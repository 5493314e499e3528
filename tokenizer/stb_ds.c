/* The one place of stb_ds's functions (growing arrays and hash maps), for the libraries of tokenizer/ and seal/
 * together. */
#define STB_DS_IMPLEMENTATION
#include <stb/stb_ds.h>
