import { readFileSync } from 'node:fs'
import { defineConfig, type Plugin } from 'vite'

// What of others is in the page.
const shipped = ['d3-dispatch', 'd3-force', 'd3-quadtree', 'd3-timer', 'preact', 'uplot']

/** The licenses of what is shipped ask to go along with it. */
function licenses(): Plugin {
  return {
    name: 'licenses',
    generateBundle() {
      const source = shipped.map((name) => `${name}\n\n${readFileSync(`node_modules/${name}/LICENSE`, 'utf8').trim()}\n`).join('\n\n')
      this.emitFile({ type: 'asset', fileName: 'licenses.txt', source })
      const others = [...this.getModuleIds()].flatMap((id) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(id)?.[1] ?? [])
        .filter((name) => !shipped.includes(name) && name !== 'vite')
      if (others.length > 0) this.error(`name in vite.config.ts what the page ships: ${others.join(', ')}`)
    },
  }
}

export default defineConfig({
  // Paths are relative: the page also works below a prefix, as behind `kubectl proxy`.
  base: './',
  plugins: [licenses()],
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
