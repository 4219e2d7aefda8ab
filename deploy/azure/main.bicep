metadata description = 'syncagent mirrors a bucket\'s events into a catalog'

// What is mirrored

@description('The bucket: ACCOUNT/CONTAINER. The account is in this resource group.')
@minLength(7)
param bucket string

@description('Only keys that begin so are read: the dataset\'s path, such as \'train/\'. Empty for all.')
param prefix string = ''

@description('The catalog\'s address, dataloop+https://host.')
param catalog string = 'dataloop+https://gate.dataloop.ai'

@description('VAULT/NAME of a secret in a key vault of this resource group that goes by roles: a JSON object with username and password of an account of the catalog.')
param account string

@description('The id of the one dataset to mirror into. Empty for all that the account sees.')
param dataset string = ''

// How events come

@description('How events come to the function; see deploy/README.md.')
@allowed(['queue', 'function'])
param wiring string = 'queue'

@description('Whether the bucket tells the queue by this template. An account has one system topic at most: with false, \'syncagent bind\' uses the one that is there.')
param bound bool = true

@description('Instances that run at once, at most. Some regions take no fewer than 40.')
@minValue(1)
@maxValue(1000)
param concurrency int = 40

// Function

@description('What the function and all that belongs to it are called.')
@minLength(4)
@maxLength(40)
param name string = 'syncagent'

@description('Where everything is. Best where the bucket\'s account is, and there it has to be if the bucket is bound by this template.')
param location string = resourceGroup().location

@description('The archive\'s Python.')
@allowed(['3.11', '3.12', '3.13'])
param python string = '3.13'

@description('Of an instance, in MB. It decides the share of a core, too.')
@allowed([512, 2048, 4096])
param memory int = 512

@description('Days that logs are kept.')
@minValue(30)
@maxValue(730)
param logDays int = 30

@description('Resource id of the action group that alarms go to. Empty for none.')
param alarmGroup string = ''

var byQueue = wiring == 'queue'
var subscribed = byQueue && bound
var unique = uniqueString(resourceGroup().id, name)
var told = empty(alarmGroup) ? [] : [alarmGroup]
var containerName = split(bucket, '/')[1]
var vault = split(account, '/')[0]
var tree = bucketAccount.properties.?isHnsEnabled ?? false
var role = {
  blobReader: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '2a2b9908-6ea1-4ae2-8e65-a410df84e7d1')
  blobContributor: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', 'ba92f5b4-2d11-453d-a403-e96b0029c9fe')
  blobOwner: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b')
  queueContributor: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '974c5e8b-45b9-4653-ba55-5f855dd0fb88')
  queueSender: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', 'c6a89b2d-59bc-44d0-9896-0f6e12d7b80a')
  secretsUser: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '4633458b-17de-408a-b874-0445c86b69e6')
  metricsPublisher: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '3913510d-42f4-4e42-8a64-420c390055eb')
}

// -- what is there --------------------------------------------------------------------------------

resource bucketAccount 'Microsoft.Storage/storageAccounts@2023-05-01' existing = {
  name: split(bucket, '/')[0]

  resource blobs 'blobServices' existing = {
    name: 'default'

    resource container 'containers' existing = {
      name: containerName
    }
  }
}

resource keyVault 'Microsoft.KeyVault/vaults@2023-07-01' existing = {
  name: vault

  resource secret 'secrets' existing = {
    name: split(account, '/')[1]
  }
}

// -- events ---------------------------------------------------------------------------------------

resource storage 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: 'sync${unique}'
  location: location
  kind: 'StorageV2'
  sku: {
    name: 'Standard_LRS'
  }
  properties: {
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    allowBlobPublicAccess: false
    // An event subscription that this template did not make has no identity: Event Grid fetches a key for it.
    allowSharedKeyAccess: byQueue && !bound
    defaultToOAuthAuthentication: true
  }

  resource blobs 'blobServices' = {
    name: 'default'

    resource archives 'containers' = {
      name: 'archives'
    }

    // What Event Grid could not put into the queue for a day: 'syncagent handle' takes it.
    resource undelivered 'containers' = {
      name: 'undelivered'
    }
  }

  resource queues 'queueServices' = {
    name: 'default'

    resource events 'queues' = if (byQueue) {
      name: 'events'
    }

    // What failed a hundred times, for most of a day, waits here for a week. The host would make it, but may make no queues.
    resource poison 'queues' = if (byQueue) {
      name: 'events-poison'
    }
  }
}

resource topic 'Microsoft.EventGrid/systemTopics@2022-06-15' = if (subscribed) {
  name: name
  location: location
  identity: {
    type: 'SystemAssigned'
  }
  properties: {
    source: bucketAccount.id
    topicType: 'Microsoft.Storage.StorageAccounts'
  }
}

resource mayFill 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (subscribed) {
  name: guid(storage.id, name, 'events', role.queueSender)
  scope: storage::queues::events
  properties: {
    principalId: topic!.identity.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: role.queueSender
  }
}

resource mayBury 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (subscribed) {
  name: guid(storage.id, name, 'undelivered', role.blobContributor)
  scope: storage::blobs::undelivered
  properties: {
    principalId: topic!.identity.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: role.blobContributor
  }
}

resource subscription 'Microsoft.EventGrid/systemTopics/eventSubscriptions@2022-06-15' = if (subscribed) {
  parent: topic
  name: name
  properties: {
    eventDeliverySchema: 'EventGridSchema'
    filter: {
      // In a hierarchical account a folder's own events name it without a slash, and a rename the new place only.
      subjectBeginsWith: '/blobServices/default/containers/${containerName}/blobs/${tree ? '' : prefix}'
      isSubjectCaseSensitive: true
      includedEventTypes: [
        'Microsoft.Storage.BlobCreated'
        'Microsoft.Storage.BlobDeleted'
        'Microsoft.Storage.BlobRenamed'
        'Microsoft.Storage.BlobTierChanged'
        'Microsoft.Storage.DirectoryDeleted'
        'Microsoft.Storage.DirectoryRenamed'
      ]
    }
    deliveryWithResourceIdentity: {
      identity: {
        type: 'SystemAssigned'
      }
      destination: {
        endpointType: 'StorageQueue'
        properties: {
          resourceId: storage.id
          queueName: 'events'
          // Two weeks: tombstones are kept for a day longer.
          queueMessageTimeToLiveInSeconds: 1209600
        }
      }
    }
    deadLetterWithResourceIdentity: {
      identity: {
        type: 'SystemAssigned'
      }
      deadLetterDestination: {
        endpointType: 'StorageBlob'
        properties: {
          resourceId: storage.id
          blobContainerName: 'undelivered'
        }
      }
    }
    // The most there is.
    retryPolicy: {
      maxDeliveryAttempts: 30
      eventTimeToLiveInMinutes: 1440
    }
  }
  dependsOn: [mayFill, mayBury, storage::queues::events, storage::blobs::undelivered]
}

// -- who the function is --------------------------------------------------------------------------

// Assigned by the user, so that it may do everything before the first instance starts.
resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: name
  location: location
}

resource mayRead 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(bucketAccount::blobs::container.id, identity.id, role.blobReader)
  scope: bucketAccount::blobs::container
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: role.blobReader
  }
}

resource maySignIn 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(keyVault::secret.id, identity.id, role.secretsUser)
  scope: keyVault::secret
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: role.secretsUser
  }
}

// 'Message Processor' may not give a failed message back: that is an update.
resource mayTake 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (byQueue) {
  name: guid(storage.id, identity.id, 'events', role.queueContributor)
  scope: storage::queues::events
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: role.queueContributor
  }
}

resource mayGiveUp 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (byQueue) {
  name: guid(storage.id, identity.id, 'events-poison', role.queueContributor)
  scope: storage::queues::poison
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: role.queueContributor
  }
}

// The host keeps its leases and keys in this account, and reads the archive from it.
resource mayHost 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(storage.id, identity.id, role.blobOwner)
  scope: storage
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: role.blobOwner
  }
}

resource mayTell 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(insights.id, identity.id, role.metricsPublisher)
  scope: insights
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: role.metricsPublisher
  }
}

// -- the function ---------------------------------------------------------------------------------

resource logs 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: name
  location: location
  properties: {
    sku: {
      name: 'PerGB2018'
    }
    retentionInDays: logDays
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: name
  location: location
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: logs.id
    DisableLocalAuth: true
  }
}

resource plan 'Microsoft.Web/serverfarms@2024-04-01' = {
  name: name
  location: location
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true
  }
}

resource function 'Microsoft.Web/sites@2024-04-01' = {
  name: '${name}-${unique}'
  location: location
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identity.id}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${storage.properties.primaryEndpoints.blob}${storage::blobs::archives.name}'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identity.id
          }
        }
      }
      runtime: {
        name: 'python'
        version: python
      }
      scaleAndConcurrency: {
        instanceMemoryMB: memory
        maximumInstanceCount: concurrency
      }
    }
    siteConfig: {
      minTlsVersion: '1.2'
      appSettings: concat(
        [
          { name: 'AzureWebJobsStorage__accountName', value: storage.name }
          { name: 'AzureWebJobsStorage__credential', value: 'managedidentity' }
          { name: 'AzureWebJobsStorage__clientId', value: identity.properties.clientId }
          { name: 'APPLICATIONINSIGHTS_CONNECTION_STRING', value: insights.properties.ConnectionString }
          {
            name: 'APPLICATIONINSIGHTS_AUTHENTICATION_STRING'
            value: 'ClientId=${identity.properties.clientId};Authorization=AAD'
          }
          { name: 'AZURE_CLIENT_ID', value: identity.properties.clientId }
          // As many as host.json has messages in hand.
          { name: 'PYTHON_THREADPOOL_THREAD_COUNT', value: '12' }
          { name: 'SYNCAGENT_WIRING', value: wiring }
          { name: 'SYNCAGENT_CATALOG', value: catalog }
          // Not references of the app's settings: those take a whole secret, and no field of it.
          { name: 'DTLPY_USERNAME', value: 'azure-secret://${vault}${environment().suffixes.keyvaultDns}/${keyVault::secret.name}#username' }
          { name: 'DTLPY_PASSWORD', value: 'azure-secret://${vault}${environment().suffixes.keyvaultDns}/${keyVault::secret.name}#password' }
        ],
        empty(dataset) ? [] : [{ name: 'DATASET_ID', value: dataset }],
        byQueue
          ? [
              { name: 'EVENTS_QUEUE', value: 'events' }
              { name: 'EVENTS__queueServiceUri', value: storage.properties.primaryEndpoints.queue }
              { name: 'EVENTS__credential', value: 'managedidentity' }
              { name: 'EVENTS__clientId', value: identity.properties.clientId }
            ]
          : []
      )
    }
  }
  dependsOn: [mayHost, mayRead, maySignIn, mayTake, mayGiveUp, mayTell]

  // Archives come by the identity of who deploys them.
  resource noPasswords 'basicPublishingCredentialsPolicies' = {
    name: 'scm'
    properties: {
      allow: false
    }
  }
}

// -- alarms ---------------------------------------------------------------------------------------

resource lateAlarm 'Microsoft.Insights/scheduledQueryRules@2022-06-15' = {
  name: '${name}-late'
  location: location
  properties: {
    description: 'An event had waited for a quarter of an hour when it was worked on.'
    severity: 2
    enabled: true
    scopes: [insights.id]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT5M'
    criteria: {
      allOf: [
        {
          query: 'traces | where message startswith \'{"message": "batch"\' | where todouble(parse_json(message).oldest_seconds) > 900'
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 0
        }
      ]
    }
    actions: {
      actionGroups: told
    }
  }
}

resource errorAlarm 'Microsoft.Insights/scheduledQueryRules@2022-06-15' = {
  name: '${name}-errors'
  location: location
  properties: {
    description: 'The function failed in each of three periods of five minutes.'
    severity: 2
    enabled: true
    scopes: [insights.id]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT5M'
    criteria: {
      allOf: [
        {
          query: 'requests | where success == false'
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 0
          failingPeriods: {
            numberOfEvaluationPeriods: 3
            minFailingPeriodsToAlert: 3
          }
        }
      ]
    }
    actions: {
      actionGroups: told
    }
  }
}

resource deadAlarm 'Microsoft.Insights/scheduledQueryRules@2022-06-15' = if (byQueue) {
  name: '${name}-dead'
  location: location
  properties: {
    description: 'Events were given up.'
    severity: 1
    enabled: true
    scopes: [insights.id]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT5M'
    criteria: {
      allOf: [
        {
          query: 'traces | where message startswith "Message has reached MaxDequeueCount"'
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 0
        }
      ]
    }
    actions: {
      actionGroups: told
    }
  }
}

resource undeliveredAlarm 'Microsoft.Insights/metricAlerts@2018-03-01' = if (subscribed) {
  name: '${name}-undelivered'
  location: 'global'
  properties: {
    description: 'Event Grid could not put events into the queue for a day.'
    severity: 1
    enabled: true
    scopes: [topic.id]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT5M'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          name: 'undelivered'
          criterionType: 'StaticThresholdCriterion'
          metricNamespace: 'Microsoft.EventGrid/systemTopics'
          metricName: 'DeadLetteredCount'
          timeAggregation: 'Total'
          operator: 'GreaterThan'
          threshold: 0
        }
      ]
    }
    actions: [for group in told: { actionGroupId: group }]
  }
}

// A function that does not run tells of nothing late. Azure counts messages once an hour at best.
resource stuckAlarm 'Microsoft.Insights/metricAlerts@2018-03-01' = if (byQueue) {
  name: '${name}-stuck'
  location: 'global'
  properties: {
    description: 'More than a thousand events wait.'
    severity: 2
    enabled: true
    scopes: [storage::queues.id]
    evaluationFrequency: 'PT1H'
    windowSize: 'PT1H'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          name: 'waiting'
          criterionType: 'StaticThresholdCriterion'
          metricNamespace: 'Microsoft.Storage/storageAccounts/queueServices'
          metricName: 'QueueMessageCount'
          timeAggregation: 'Average'
          operator: 'GreaterThan'
          threshold: 1000
        }
      ]
    }
    actions: [for group in told: { actionGroupId: group }]
  }
}

@description('The function app\'s name.')
output app string = function.name

@description('For \'syncagent bind DATASET --queue\'. Empty without a queue.')
output queue string = byQueue ? 'azqueue://${storage.name}/events' : ''

@description('For \'syncagent bind DATASET --to function --function\'.')
output function string = '${function.id}/functions/on_event'

@description('What was given up. Empty without a queue.')
output deadLetters string = byQueue ? 'azqueue://${storage.name}/events-poison' : ''
