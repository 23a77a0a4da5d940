import { defineConfig } from 'vite'

export default defineConfig({
  // Paths are relative: the page also works below a prefix, as behind `kubectl proxy`.
  base: './',
  esbuild: { jsx: 'automatic', jsxImportSource: 'preact', legalComments: 'none' },
  build: {
    outDir: '../extension/orb8queryextension/internal/ui/dist',
    emptyOutDir: true,
    target: 'es2022',
    // The policy of the page forbids what is in the page itself: data: URLs and inline scripts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: {
      output: {
        entryFileNames: 'assets/[name]-[hash].js',
        chunkFileNames: 'assets/[name]-[hash].js',
        assetFileNames: 'assets/[name]-[hash][extname]',
      },
    },
  },
  // `npm run dev` asks the collector of this host.
  server: { proxy: { '/orb8.v1.OrbitService': process.env.ORB8_AGENT ? `http://${process.env.ORB8_AGENT}` : 'http://127.0.0.1:9090' } },
})
