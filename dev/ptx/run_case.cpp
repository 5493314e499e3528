/*
Runs kernels of a translated module with numbers from stdin, for test_translate.py. A line is: kernel, threads, dynamic
shared bytes, 8-byte words of input and of output, the input in hexadecimal. One line of output for each, in
hexadecimal.
*/
#include <cuda_runtime.h>
#include <inttypes.h>

int main(void) {
    char kernel[256];
    int threads, dynamic, n_in, n_out;
    while (scanf("%255s %d %d %d %d", kernel, &threads, &dynamic, &n_in, &n_out) == 5) {
        uint64_t *in = NULL, *out = NULL, *host = (uint64_t*)calloc(n_in + n_out + 1, 8);
        for (int i = 0; i < n_in; i++)
            if (scanf("%" SCNx64, &host[i]) != 1) return 2;
        cudaMalloc(&in, 8 * (n_in ? n_in : 1));
        cudaMalloc(&out, 8 * (n_out ? n_out : 1));
        cudaMemcpy(in, host, 8 * n_in, cudaMemcpyHostToDevice);
        cpu_launch launch = {kernel,        __FILE__,        __LINE__, "cases.cu", "",   NULL, dim3(1),
                             dim3(threads), (size_t)dynamic, NULL,     NULL,       NULL, NULL};
        const ptx_argument arguments[] = {{&in, 8, 8}, {&out, 8, 8}};
        if (!ptx_launch(&launch, arguments, 2)) {
            fprintf(stderr, "run_case: no kernel %s\n", kernel);
            return 2;
        }
        cpu_launch_kernel(launch, NULL);
        cudaDeviceSynchronize();
        cudaMemcpy(host, out, 8 * n_out, cudaMemcpyDeviceToHost);
        for (int i = 0; i < n_out; i++) printf("%" PRIx64 "%c", host[i], i + 1 < n_out ? ' ' : '\n');
        fflush(stdout);
        cudaFree(in);
        cudaFree(out);
        free(host);
    }
    return 0;
}
