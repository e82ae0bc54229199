/** A volume of a simulated node, and what its writer knows of it. */
import type { LocalReplica } from '../../daemon/replica/local-replica.ts';
import type { VolumeIdentity } from '../../daemon/replica/replica.ts';
import { Volume } from '../../daemon/volume/volume.ts';
import { type Generations, SectorLedger } from './sector-ledger.ts';

export class SimulatedVolume {
  readonly identity: VolumeIdentity;
  readonly sizeBytes: number;
  readonly ledger: SectorLedger;
  device!: Volume;
  /** Being deleted: nobody uses it any more. The catalog knows, so a start knows. */
  isDoomed = false;

  constructor(identity: VolumeIdentity, sizeBytes: number, generations: Generations) {
    this.ledger = new SectorLedger(generations);
    this.identity = identity;
    this.sizeBytes = sizeBytes;
  }

  open(replica: LocalReplica, epoch: number, durability: 'flush' | 'sync'): void {
    const { identity, sizeBytes } = this;
    this.device = new Volume({ identity, sizeBytes, durability, epoch, replica });
  }
}
