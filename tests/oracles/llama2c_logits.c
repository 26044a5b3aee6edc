// Prints the logits that llama2.c's run.c (commit 350e04f) computes from a legacy checkpoint of ours, as JSON.
//
//     ORACLE_FOLDER=/tmp/folder cargo test -p siskin-compiler --test importers -- --ignored
//     cc -O2 -DTESTING -I DIRECTORY_OF_RUN_C tests/oracles/llama2c_logits.c -lm -o /tmp/llama2c_logits
//     /tmp/llama2c_logits /tmp/folder/untied.bin > tests/golden/llama2c_logits.json

#include "run.c"

#define N_TOKENS 14
#define N_RECORDED 3

int main(int argc, char *argv[]) {
    Transformer transformer;
    if (argc != 2) { fprintf(stderr, "usage: %s CHECKPOINT\n", argv[0]); return 2; }
    build_transformer(&transformer, argv[1]);
    int vocab_size = transformer.config.vocab_size;
    printf("{\"ids\":[");
    for (int pos = 0; pos < N_TOKENS; pos++) printf("%s%d", pos ? "," : "", (7 * pos * pos + 3 * pos + 1) % vocab_size);
    printf("],\"logits\":[");
    for (int pos = 0; pos < N_TOKENS; pos++) {
        float *logits = forward(&transformer, (7 * pos * pos + 3 * pos + 1) % vocab_size, pos);
        if (pos < N_TOKENS - N_RECORDED) continue;
        printf("%s[", pos > N_TOKENS - N_RECORDED ? "," : "");
        for (int id = 0; id < vocab_size; id++) printf("%s%.6f", id ? "," : "", logits[id]);
        printf("]");
    }
    printf("]}\n");
    free_transformer(&transformer);
    return 0;
}
