"""Fills ringgeard's queue and drains it under several allocators: speed, and memory left. argv: folder of ringgeard-NAME, loadgen, repeats, csv."""
import json, os, subprocess, sys, time
bins, loadgen, repeats, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
lib = '/usr/lib/x86_64-linux-gnu/'
contenders = [('glibc 2.36', 'glibc', {}), ('jemalloc 5.3.0', 'glibc', {'LD_PRELOAD': lib + 'libjemalloc.so.2'}),
  ('tcmalloc 2.10', 'glibc', {'LD_PRELOAD': lib + 'libtcmalloc_minimal.so.4'}),
  ('mimalloc 3; huge pages', 'mi3', {}), ('mimalloc 2; huge pages', 'mi2', {}), ('mimalloc 2', 'mi2n', {}),
  ('chosen', 'chosen', {})]
port = 21000
def rss(pid):
    for line in open(f'/proc/{pid}/status'):
        if line.startswith('VmRSS'): return int(line.split()[1])
rows = open(out, 'w'); rows.write('repeat,allocator,jobs_per_second,user_us_per_job,system_us_per_job,rss_start_kib,rss_full_kib,rss_drained_kib\n')
for repeat in range(repeats):
    for name, binary, env in contenders:
        port += 1
        server = subprocess.Popen(['taskset', '-c', '0', f'{bins}/ringgeard-{binary}', '--io', 'uring', '--port', str(port), '--log-file', 'none'], env={**os.environ, **env})
        time.sleep(0.7)
        start = rss(server.pid)
        load = lambda *o: subprocess.run(['taskset', '-c', '1', loadgen, '--addr', f'127.0.0.1:{port}', '--mode', 'background', '--warm-up', '0s', '--json', *o], capture_output=True)
        said = json.loads(load('--clients', '50', '--workers', '0', '--pipeline', '16', '--jobs', '1000000').stdout)
        full = rss(server.pid)
        for _ in range(60):
            load('--clients', '1', '--workers', '50', '--duration', '2s')
            status = subprocess.run(['gearadmin', '-h', '127.0.0.1', '-p', str(port), '--status'], capture_output=True, text=True).stdout
            if all(line.split('\t')[1] == '0' for line in status.splitlines() if '\t' in line): break
        time.sleep(1)
        s = said['server']
        rows.write(f"{repeat},{name},{said['jobs_per_second']:.0f},{s['cpu_user_us_per_job']:.3f},{s['cpu_system_us_per_job']:.3f},{start},{full},{rss(server.pid)}\n"); rows.flush()
        server.terminate(); server.wait()
